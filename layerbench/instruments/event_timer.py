"""Device rounds by events: the times of a model's modules where the profiler sees no kernels.

Two events around every module would stand between all kernels. Here one forward is observed
beforehand; from then on an event stands only where a piece of work ends and the next begins. The
queue is blocked until the host has issued the whole forward, so that the device does not wait for
the host, and what an event itself takes on the queue is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, wraps
from threading import get_ident
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench.environment.devices import Device
from layerbench.environment.devices.blocking import HELD_AT_LEAST
from layerbench.instruments.attach import (
    Attachment,
    Replacement,
    function_at,
    usual_place,
)
from layerbench.instruments.borders import ENTRY, EXIT, Borders, Launches, Way, added_up
from layerbench.instruments.calibration import event_cost
from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.layer_timer import notes_on_threads
from layerbench.instruments.modes import Observing
from layerbench.instruments.modules import Call, modules_at
from layerbench.introspection.modules import children
from layerbench.units import NANOSECOND

# What is shorter than so many events is not told from the events' own irregularity.
LEAST_IN_EVENTS = 5
# A model may go another way once it has filled its caches; one that draws its way never settles.
MOST_OBSERVED = 3

LAUNCHING_WITHIN = (
    "the queue cannot be blocked here: launching by the host, and the events themselves, are "
    "within device times"
)


class EventTimer:
    """Times a model's modules on the device, by an event at each end of a piece of work.

    The first `run` is the one that is observed: with two events for each module, and not behind a
    blocked queue, as nobody knows yet how long the host takes. It belongs into the warm-up.

    Known limitations: a function that a module runs in some forwards only is not noticed; its time
    then counts to the next piece of work. Kernels launched without PyTorch's operators count so,
    too, unless a module of the user's own launches them that has no others within.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those whose borders count; a call of any other is part of its caller.
        device: where the model runs.
        observes: whether a mode may see the operators of a forward; else two events stand around
            each module in all of them.

    Attributes:
        has_run: whether a forward has run; the first is no sample.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        timed_paths: frozenset[str],
        device: Device,
        *,
        observes: bool = True,
    ) -> None:
        self.has_run = False
        self._paths = tuple(paths)
        self._device = device
        self._clock = device.clock()
        self._launches = Launches(device.torch_device.type)
        self._borders = Borders(self._clock.mark)
        self._block = _QueueBlock(device)
        self._way: Way | None = None
        self._observed = 0 if observes else MOST_OBSERVED
        self._other_ways = self._forwards = self._marks = 0
        self.look_anew(model, timed_paths)

    def look_anew(self, model: nn.Module, timed_paths: frozenset[str]) -> None:
        """Take what lies on the modules now, beneath the borders; they must have no others.

        Args:
            model, timed_paths: as before; modules may have gone, or have other forwards.
        """
        index_of = {path: index for index, path in enumerate(self._paths)}
        instances = modules_at(model, timed_paths - {""})
        self._marks = max(self._marks, 2 * len(instances) + 2)
        self._attachment = Attachment(
            self._bordered(module, index_of[path]) for path, module in instances.items()
        )

    def _bordered(self, module: nn.Module, index: int) -> Replacement:
        place = usual_place(module)
        original = function_at(module, place)
        borders, launches = self._borders, self._launches
        cross, thread = borders.cross, borders.thread
        hides_all, hides_some = _hides_all(module), _may_hide_kernels(module)

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or get_ident() not in thread:
                if thread and not is_dynamo_compiling():  # which refuses what reaches outside
                    borders.elsewhere.add(index)
                return original(*args, **kwargs)
            cross(index)
            try:
                return original(*args, **kwargs)
            finally:
                if hides_all or (hides_some and borders.just_entered(index)):
                    launches.note()
                cross(~index)

        return module, place, forward

    @cached_property
    def event_cost_ns(self) -> int:
        """Nanoseconds that an event takes on the queue; 0 where that cannot be told."""
        cost = event_cost(self._device)
        return 0 if cost is None else round(cost.queue_s / NANOSECOND)

    @property
    def resolution_ns(self) -> int:
        """Nanoseconds of the shortest piece of work that two events tell from nothing."""
        return LEAST_IN_EVENTS * self.event_cost_ns

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:  # noqa: ARG002
        """Run one forward, wait for the device, and add the pieces up; functions have no rows.

        Whatever the model raises passes through; the model is left as it was.
        """
        cost, clock = self.event_cost_ns, self._clock
        clock.reserve(self._marks)
        self.has_run = True
        try:
            observing = self._observing()
            with self._attachment.attached(), self._forward(observing), self._block.on():
                self._borders.cross(ENTRY)
                call()
                self._borders.cross(EXIT)
            clock.synchronize()
            self._note(observing)
            positions = clock.resolve(self._borders.marks)
            return added_up(self._borders.crossed, positions, cost, len(self._paths))
        finally:
            clock.release()

    def _observing(self) -> Observing | None:
        """What observes the forward to come; ``None`` where its way is known."""
        if self._way is None and self._observed < MOST_OBSERVED:
            self._observed += 1
            return Observing(self._launches)
        return None

    @contextmanager
    def _forward(self, observing: Observing | None) -> Iterator[None]:
        launches = None if observing is None else self._launches
        with ExitStack() as stack:
            stack.enter_context(self._borders.of_forward(self._way, launches))
            if observing is not None:
                stack.enter_context(observing.on())
            yield

    def _note(self, observing: Observing | None) -> None:
        """Keep the way of the forward just run, or notice that it was another one."""
        borders = self._borders
        self._forwards += 1
        self._marks = max(self._marks, len(borders.crossed))
        if observing is not None:
            if observing.unseen or borders.elsewhere:
                self._observed = MOST_OBSERVED  # it would not be seen the next time either
            else:
                self._way = borders.way()
        elif borders.is_other_way:
            self._other_ways += 1
            if self._observed < MOST_OBSERVED:
                self._way = None

    def below_resolution(self, forwards: Sequence[KernelForward]) -> tuple[int, ...]:
        """Indices of the modules whose pieces of work are too short for the clock.

        Each piece may be wrong by an event or so: a module's time is set against as many
        resolutions as it has pieces of work.
        """
        if not forwards:
            return ()
        pieces = self._pieces(forwards[-1])
        times = np.median(np.stack([forward.inclusive_ns for forward in forwards]), axis=0)
        below = (times < pieces * self.resolution_ns) & (pieces > 0)
        return tuple(int(index) for index in np.flatnonzero(below))

    def _pieces(self, forward: KernelForward) -> NDArray[np.int64]:
        """Of each module; where no way is known, each of its calls is one."""
        return forward.calls if self._way is None else self._way.pieces(len(self._paths))

    def forget(self) -> None:
        """Let `notes` speak only of forwards from here on: those before were the warm-up's."""
        self._forwards = self._other_ways = 0
        self._block.forget()

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the forwards so far."""
        return (
            *notes_on_threads(self._paths, self._borders.elsewhere),
            *self._note_on_ways(),
            *self._block.notes(self._forwards),
        )

    def _note_on_ways(self) -> tuple[str, ...]:
        if not self._other_ways:
            return ()
        return (
            f"{self._other_ways} of {self._forwards} forwards for device times went another way "
            "than the one observed: there two events stand around each module",
        )


def _hides_all(module: nn.Module) -> bool:
    """Whether a module's work need not pass through operators that a mode sees."""
    return isinstance(module, torch.jit.ScriptModule) or is_compiled(module)


def _may_hide_kernels(module: nn.Module) -> bool:
    """Whether a call without operators may have launched kernels: PyTorch's own classes do not."""
    return not type(module).__module__.startswith("torch.nn.") and not any(children(module))


class _QueueBlock:
    """Blocks a device's queue for as long as the host took to issue the same work before.

    Bounded: a forward in which the host waits for the device would wait for the block, too.

    Args:
        device: whose present queue is blocked.

    Attributes:
        cannot: whether the device said that its queue cannot be blocked.
    """

    # Twice the host's time and half a millisecond: the host's time varies. One that was long is
    # forgotten little by little.
    FACTOR, MARGIN_S, KEPT = 2.0, 0.0005, 0.8
    MOST_S = 1.0
    # After so many forwards in a row that outlasted the block, it is not tried again.
    ATTEMPTS = 3

    def __init__(self, device: Device) -> None:
        self._device = device
        self._issue_s: float | None = None
        self._outlasted = 0
        self._in_a_row = 0
        self.cannot = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Block the queue while the ``with`` block issues its work."""
        begun = perf_counter_ns()
        blocked_s = self._begin()
        yield
        took_s = (perf_counter_ns() - begun) * NANOSECOND
        if blocked_s is not None:
            # One that waits for the device ends with the block, or after it.
            outlasted = took_s > HELD_AT_LEAST * blocked_s
            self._outlasted += outlasted
            self._in_a_row = self._in_a_row + 1 if outlasted else 0
        self._issue_s = max(took_s, self.KEPT * (self._issue_s or 0.0))

    def _begin(self) -> float | None:
        """The seconds for which the queue is blocked; ``None`` where it is not."""
        if self._issue_s is None or self.cannot or self._gave_up:
            return None
        wanted = min(self.FACTOR * self._issue_s + self.MARGIN_S, self.MOST_S)
        try:
            blocked = self._device.block_queue(wanted)
        except RuntimeError:  # a full device may have no memory for the work
            blocked = False
        self.cannot = not blocked
        return wanted if blocked else None

    @property
    def _gave_up(self) -> bool:
        return self._in_a_row >= self.ATTEMPTS

    def forget(self) -> None:
        """Count anew the forwards that outlasted the block."""
        self._outlasted = 0

    def notes(self, forwards: int) -> tuple[str, ...]:
        """What a reader of these forwards' times should know."""
        if self.cannot:
            return (LAUNCHING_WITHIN,)
        if self._gave_up:
            return (
                "the host waits for the device in the forward, or takes too long to launch it: "
                "launching is within device times",
            )
        if self._outlasted:
            return (
                f"{self._outlasted} of {forwards} forwards for device times took the host longer "
                "than the queue was blocked: some launching may be within them",
            )
        return ()
