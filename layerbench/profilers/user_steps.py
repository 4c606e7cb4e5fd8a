"""Take the training steps apart that the user's own loop runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer

from layerbench.environment.devices.clocks import Clock
from layerbench.errors import UsageError, at_least
from layerbench.instruments.attach import (
    Forward,
    attributes_replaced,
    function_at,
    inspected_as,
    notes_on_modes,
    usual_place,
)
from layerbench.instruments.compiled import is_traced
from layerbench.instruments.loop_events import loop_told
from layerbench.instruments.modules import checked_module, has_no_forward, named_instances
from layerbench.instruments.overlay import compilation_told
from layerbench.instruments.rows import observed_rows
from layerbench.instruments.step_loop import LoopStepTimer, StepLog
from layerbench.instruments.waiting import wait_meter
from layerbench.profilers.user_loop_compiled import CompiledOutside
from layerbench.profilers.user_loop_device import surroundings_of_loop
from layerbench.profilers.user_loop_record import Moment
from layerbench.profilers.user_steps_look import Look
from layerbench.profilers.user_steps_memory import LoopMemory
from layerbench.profilers.user_steps_record import (
    EVALUATED,
    NO_WHOLE_STEP,
    NOT_CALLED,
    TOO_FEW,
    SeenSteps,
    record_of_loop,
)
from layerbench.records.presented import Presented
from layerbench.records.training_step import TrainingProfile

FORWARD = "forward"
PARTS = "parts"
"""In place of a method: whichever part of the model the step calls from outside."""
SKIP = 5
STEPS = 10
LATER = "the model was compiled while its steps were profiled, which ended that"


class LiveSteps(Presented):
    """What `profile_steps` has seen so far; it is shown and saved as its `record`.

    The first step of those that are profiled shows calls and shapes, and its times do not count.
    Of the others, each pair has one with marks between its phases alone, and one whose layers are
    timed, in alternating order.

    Args:
        model: that the loop trains.
        optimizers: that update it.
        skip: steps that pass before.
        steps: whose times count.
        clock: ``None`` takes that of the device that the model is on.
        entry: the model's method that runs a step's forward, or `PARTS`.
        memory: whether the storages of the step that is looked at are traced.

    Attributes:
        is_over: whether all steps have been profiled, or the block has ended.
        number: steps that have ended.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        skip: int = SKIP,
        steps: int = STEPS,
        clock: Clock | None = None,
        entry: str = FORWARD,
        memory: bool = True,
    ) -> None:
        self.is_over = False
        self.number = 0
        self._model = model
        self._optimizers = optimizers
        self._skip = at_least("skip", skip, 0)
        self._steps = at_least("steps", steps, 2)
        self._given = clock
        self._entry = entry
        self._traces = memory
        self._memory: LoopMemory | None = None
        self._is_paused = True
        self._window: ExitStack | None = None
        self._of_step = ExitStack()
        self._timer: LoopStepTimer | None = None
        self._inside = self._in_backward = False
        self._marks = self._measured = 0
        self._made: tuple[int, TrainingProfile] | None = None
        self._seen = SeenSteps(warmup=skip + 1)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Profile steps within the ``with`` block, as soon as it is their turn."""
        try:
            self.resume()
            yield
        finally:
            self.close()

    def step(self) -> None:
        """A step of the loop has ended: the optimizer has made its update.

        Where no update was seen since the last time, the step goes on.
        """
        if self.is_over or self._is_paused:
            return
        if self._window is None:
            self.number += 1
            if self.number == self._skip:
                self._open()
        elif self._log.has("update"):
            self.number += 1
            self._end_step()

    def resume(self) -> None:
        """The loop begins, or goes on."""
        self._is_paused = False
        if not self.is_over and self._window is None and self.number >= self._skip:
            self._open()

    def pause(self) -> None:
        """Take everything off until the loop goes on; a step that goes on now does not count."""
        self._is_paused = True
        window, self._window = self._window, None
        if window is not None:
            window.close()
            self._seen.ended = Moment.now()
            self._seen.absent |= self._outside.absent(self._seen.forwards)

    def close(self) -> None:
        """Take everything off for good."""
        self.is_over = True
        self.pause()

    # --- the steps ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Look at the model, before the first step that is profiled."""
        model = self._model
        where = surroundings_of_loop(model, (), self._given, observes=False)
        seen = self._seen
        seen.began, seen.device, seen.conditions = Moment.now(), where.device, where.conditions
        self._clock = self._given or where.device.clock()
        within = self._entry in (FORWARD, PARTS)
        self._look = Look(model, where.device.torch_device.type, within=within)
        self._outside = CompiledOutside(model, lambda: self._inside)
        self._meter = wait_meter(self._clock)

    def _open(self) -> None:
        """The next step is profiled."""
        if self._seen.began is None:
            self._begin()
        model = self._model
        clearing = (model, "zero_grad", self._clearing(model.zero_grad))
        self._thread = get_ident()
        with ExitStack() as window:
            window.enter_context(attributes_replaced([clearing], open_to_user=True))
            window.enter_context(compilation_told(self._compiled_meanwhile))
            window.enter_context(self._outside.noticed())
            window.enter_context(loop_told(self, self._optimizers))
            window.callback(self._of_step.close)
            self._begin_step()
            self._window = window.pop_all()

    def _entries(self) -> Iterator[tuple[nn.Module, str, Forward]]:
        """What runs forwards, told."""
        if self._entry not in (FORWARD, PARTS):
            yield self._told("", self._model, self._entry)
            return
        there = named_instances(self._model)
        for fact in self._look.facts:
            module = there.get(fact.path)
            is_entry = not fact.path or (self._entry == PARTS and fact.reachable)
            if module is not None and is_entry:
                yield self._told(fact.path, module, usual_place(module))

    def _compiled_meanwhile(self, module: nn.Module) -> None:
        del module  # what is compiled again later must see nothing of ours on any
        self._seen.absent["steps"] = LATER
        self._log.is_whole = False
        self.close()

    @property
    def _observes(self) -> bool:
        return not self._seen.rows

    def _begin_step(self) -> None:
        self._timer = self._memory = None
        # One of each pair, the other one first in every second pair.
        if not self._observes and self._measured % 4 in (1, 2):
            paths = [fact.path for fact in self._look.facts]
            reachable = frozenset(fact.path for fact in self._look.facts if fact.reachable)
            timer = LoopStepTimer.of_modules(self._model, paths, reachable, self._clock)
            self._of_step.enter_context(timer.attached())
            self._timer = timer
        # Last, so that a part that is called from outside is told before it is timed.
        entries = attributes_replaced(self._entries(), open_to_user=True)
        self._of_step.enter_context(entries)
        self._clock.reserve(self._marks)
        if self._observes:
            self._look_at_step()
        self._meter.begin()
        self._log = StepLog(self._clock)

    def _look_at_step(self) -> None:
        look, device = self._look, self._seen.device
        look.begin()
        if self._traces and device is not None:
            kind = device.torch_device.type
            memory = LoopMemory(self._model, look.facts, look.running, kind, self._optimizers)
            self._of_step.callback(memory.close)
            self._memory = memory

    def _end_step(self) -> None:
        log, timer = self._log, self._timer
        end = self._clock.mark()
        waited = self._meter.end()
        self._clock.synchronize()
        self._of_step.close()
        try:
            self._marks = max(self._marks, log.marks + (timer.marks if timer else 0))
            self._keep(log, timer, end, waited)
        finally:
            self._clock.release()
        assert self._seen.conditions is not None
        self._seen.conditions.take()
        if self._measured >= self._steps:
            self.close()
        else:
            self._begin_step()

    def _keep(
        self, log: StepLog, timer: LoopStepTimer | None, end: int, waited: int | None
    ) -> None:
        """Note the step that has ended."""
        phases = log.phases(end, log.start)
        whole = log.has_ended and bool(phases.micro_batches_ns)
        if self._observes:
            # One that nothing came of shows nothing: the next one is looked at.
            if whole and self._look.workload is not None:
                self._keep_look(self._look)
            return
        self._measured += 1
        if not whole:
            self._seen.broken += 1
        elif timer is not None:
            self._seen.instrumented.append((phases, timer.step(phases, log.start)))
        else:
            self._seen.add_untouched(phases, waited)

    def _keep_look(self, look: Look) -> None:
        self._seen.workload = look.workload
        self._seen.rows = observed_rows(self._model, look.facts, look.calls)
        self._seen.notes = notes_on_modes(self._model, True)
        if self._memory is not None:
            self._seen.memory = self._memory.held(self._seen.rows, look.calls)
        absent = "not asked for" if self._memory is None else self._memory.absent
        if absent:
            self._seen.absent["memory"] = absent
        self._memory = None

    # --- what happens in them ----------------------------------------------------------------

    def fetching(self) -> AbstractContextManager[object]:
        """A data loader gives a batch."""
        if self._memory is not None:
            self._memory.fetching()
        # Not the model's mode: a loop may put it into training after the fetch.
        return self._log.during("fetch" if torch.is_grad_enabled() else "other")

    def clearing(self) -> AbstractContextManager[object]:
        """Gradients are cleared."""
        return nullcontext() if self._log.is_inside("clear") else self._log.during("clear")

    @contextmanager
    def updating(self) -> Iterator[None]:
        """An optimizer updates."""
        if self._log.is_inside("update"):
            yield
            return
        with self._log.during("update"), self._traced(LoopMemory.update):
            yield

    def _traced(
        self, part: Callable[[LoopMemory], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        return nullcontext() if self._memory is None else part(self._memory)

    @contextmanager
    def going_backward(self, losses: Sequence[torch.Tensor]) -> Iterator[None]:
        """A backward runs from these."""
        log, timer = self._log, self._timer
        # One within another is a checkpoint's; without a forward it is none of the model's.
        if self._in_backward or self._inside or not log.has("forward"):
            yield
            return
        self._in_backward = True
        try:
            if timer is None:
                with log.during("backward"), self._traced(LoopMemory.backward):
                    yield
                return
            with ExitStack() as hooks:
                with log.during("ours"):
                    hooks.enter_context(timer.hooked(losses))
                begin = log.begin("backward")
                try:
                    yield
                except BaseException:
                    log.is_whole = False
                    raise
                finally:
                    timer.after_backward(begin, log.end())
                    log.begin("ours")
                    hooks.close()
                    log.end()
        finally:
            self._in_backward = False

    def _clearing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def zero_grad(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the module's
            if self._is_paused or get_ident() != self._thread:
                return original(*args, **kwargs)
            with self.clearing():
                return original(*args, **kwargs)

        return zero_grad

    def _told(self, path: str, module: nn.Module, place: str) -> tuple[nn.Module, str, Forward]:
        """A part's forward, told."""
        original = function_at(module, place)

        @inspected_as(getattr(module, place))
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            # Of a model that calls itself the outer call counts; what traces it must not see us.
            if (
                is_dynamo_compiling()
                or self._inside
                or self._in_backward
                or self._is_paused
                or get_ident() != self._thread
                or is_traced()
            ):
                return original(*args, **kwargs)
            self._inside = True
            try:
                if not (self._model.training and torch.is_grad_enabled()):
                    self._seen.evaluated += 1
                    with self._log.during("evaluation"):
                        return original(*args, **kwargs)
                self._seen.forwards += 1
                return self._forward(path, original, args, kwargs)
            finally:
                self._inside = False

        return module, place, forward

    def _forward(
        self, path: str, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        log, timer = self._log, self._timer
        if self._observes:
            original = self._look.at(path, original, again=log.has("backward"))
        if timer is None:
            traced = self._traced(lambda memory: memory.forward((args, kwargs)))
            with log.during("forward"), traced:
                return original(*args, **kwargs)
        timer.before_forward()
        begin = log.begin("forward")
        try:
            return original(*args, **kwargs)
        except BaseException:
            log.is_whole = False
            raise
        finally:
            timer.after_forward(begin, log.end())

    # --- the record --------------------------------------------------------------------------

    @property
    def record(self) -> TrainingProfile:
        """The steps so far, as `layerbench.profile_training` gives them.

        Raises:
            UsageError: too few steps have been profiled.
        """
        rounds = self._seen.rounds
        if not rounds:
            raise UsageError(f"no training step was profiled: {self._why()}")
        if self._made is None or self._made[0] != rounds:
            self._made = (rounds, record_of_loop(self._seen, self._optimizers))
        return self._made[1]

    def _why(self) -> str:
        if "steps" in self._seen.absent:
            return self._seen.absent["steps"]
        if self._seen.began is None:
            return (
                f"the first {self._skip} are skipped, and {self.number} have ended: skip fewer, or "
                "call step() after each update of the optimizer"
            )
        if not self._seen.forwards:
            unseen = str(self._outside.no_forward(NOT_CALLED))
            return EVALUATED if self._seen.evaluated else unseen
        return (self._look.failed or NO_WHOLE_STEP) if self._observes else TOO_FEW

    def presented(self) -> TrainingProfile:
        """The record so far."""
        return self.record


@contextmanager
def profile_steps(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    skip: int = SKIP,
    steps: int = STEPS,
    memory: bool = True,
    clock: Clock | None = None,
) -> Iterator[LiveSteps]:
    """Take training steps of the caller's own loop apart: by phase, and by module.

    No step is added, and nothing lies on the model or the optimizer before and after the steps that
    are profiled. Forwards that evaluate are no part of them.

    Args:
        model: that the loop trains; left as it was when the block ends, also by an exception. Of
            one without a forward (``ModuleList``), whichever parts the loop calls.
        optimizer: that updates it, or several.
        skip: steps that pass before.
        steps: whose times count; one more, before them, is looked at.
        memory: trace what the tensors of the step that is looked at hold. False leaves it out, for
            a model that does not bear a dispatch mode.
        clock: ``None`` takes that of the device that the model is on.

    Yields:
        what has been seen so far. Call its ``step()`` after each update of the optimizer; its
        ``record`` is a `layerbench.TrainingProfile`.

    Raises:
        UsageError: something is no module or no optimizer, or there are too few steps.

    Example:
        >>> with profile_steps(model, optimizer) as steps:    # doctest: +SKIP
        ...     for x, y in loader:
        ...         loss_of(model(x), y).backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         steps.step()
        >>> steps.record.save("step.json")                     # doctest: +SKIP
    """
    each = optimizers_of(optimizer)
    entry = PARTS if has_no_forward(checked_module(model)) else FORWARD
    live = LiveSteps(model, each, skip=skip, steps=steps, clock=clock, entry=entry, memory=memory)
    with live.attached():
        yield live


def optimizers_of(given: object) -> tuple[Optimizer, ...]:
    """PyTorch's own optimizers, without what libraries have put around them.

    Raises:
        UsageError: something is no optimizer.
    """
    each = given if isinstance(given, (list, tuple)) else [given]
    found = tuple(dict.fromkeys(map(_unwrapped, each)))
    if not found:
        raise UsageError("no optimizer was given: pass the one that updates the model")
    return found


def _unwrapped(optimizer: object) -> Optimizer:
    inner = getattr(optimizer, "optimizer", None)
    if inner is not None:
        return _unwrapped(inner)
    if not isinstance(optimizer, Optimizer):
        raise UsageError(f"a {type(optimizer).__name__} is no torch.optim.Optimizer")
    return optimizer
