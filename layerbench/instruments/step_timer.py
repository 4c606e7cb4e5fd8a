"""Time of a training step: by phase, and forward and backward by module.

Backward hooks of modules raise on in-place layers, so none are used. Autograd runs the nodes of
the graph one after the other, the one made last first, and one that accumulates a gradient as soon
as it can. A node belongs to the module that was running when the forward made it, told by
autograd's own count (see `instruments.module_tracker`); one that accumulates a gradient, to the
parameter's owner. Where a module's nodes begin, the first one gets a hook that marks it: a module's
time reaches to where the next one's begins, and all of them add up to the backward.

A forward that runs again within the backward is told apart: see `instruments.step_again`.

Known limitation: a module that runs outside Python is timed as one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.compiler import is_dynamo_compiling

from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import (
    Forward,
    Replacement,
    attributes_replaced,
    function_at,
    usual_place,
)
from layerbench.instruments.layer_timer import Folded, fold
from layerbench.instruments.modules import modules_at
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.step_again import Again, PlaceOfNumber
from layerbench.instruments.step_nodes import (
    Node,
    NodeMarks,
    let_go,
    owners_of,
    rows_above,
    spent_between,
)
from layerbench.instruments.step_places import ROOT, Call, Places
from layerbench.records.training_step import STEP_PHASES

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = Any


@dataclass(frozen=True)
class Step:
    """One training step, in pieces that are timed apart.

    Attributes:
        fetch: gives the next batch, on the host.
        move: puts it where the model is.
        forward: gives the model's output for it.
        loss: makes a scalar of output and batch.
        update: ``optimizer.step()`` and ``zero_grad()``.
        backward: goes backward from the loss.
        micro_batches: so often do all but the last come in a step.
    """

    fetch: Callable[[], Batch]
    move: Callable[[Batch], Batch]
    forward: Callable[[Batch], Any]
    loss: Callable[[Any, Batch], torch.Tensor]
    update: Callable[[], object]
    backward: Callable[[torch.Tensor], object] = torch.Tensor.backward
    micro_batches: int = 1


def run_phases(step: Step, mark: Callable[[], int]) -> Iterator[tuple[int, str, Any]]:
    """Run a step phase by phase.

    Gives, after each of `STEP_PHASES`, a mark, the phase's name, and what it made: the batch, the
    batch on the device, the output, the loss; ``None`` after the last two. A first mark with no
    name comes before all. Those before the optimizer come once for each micro-batch.
    """
    yield mark(), "", None
    for _ in range(step.micro_batches):
        batch = step.fetch()
        yield mark(), "data", batch
        batch = step.move(batch)
        yield mark(), "copy", batch
        output = step.forward(batch)
        yield mark(), "forward", output
        loss = step.loss(output, batch)
        yield mark(), "loss", loss
        step.backward(loss)
        yield mark(), "backward", None
        del output
    step.update()
    yield mark(), "optimizer", None


OF_MICRO_BATCH = len(STEP_PHASES) - 1
"""Phases that come once for each micro-batch; the last one comes once in a step."""


def by_micro_batch(durations: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """What the phases of each micro-batch took.

    Args:
        durations: between the marks of `run_phases`.
    """
    each = range(0, len(durations) - 1, OF_MICRO_BATCH)
    return tuple(tuple(durations[at : at + OF_MICRO_BATCH]) for at in each)


def by_phase(durations: Sequence[int]) -> tuple[int, ...]:
    """What each of `STEP_PHASES` took, all micro-batches together.

    Args:
        durations: between the marks of `run_phases`.
    """
    return (*map(sum, zip(*by_micro_batch(durations), strict=True)), durations[-1])


def phases_of(step: Step, clock: Clock, steps: int) -> list[tuple[int, ...]]:
    """Run steps one after the other, and wait for the device in the end.

    Args:
        step: that runs, with nothing attached.
        clock: where marks come from.
        steps: how many.

    Returns:
        nanoseconds of each step by phase.
    """
    clock.reserve(2 * len(STEP_PHASES) * step.micro_batches * steps)
    marks = [[mark for mark, _, _ in run_phases(step, clock.mark)] for _ in range(steps)]
    clock.synchronize()
    try:
        return [by_phase(_differences(clock.resolve(one))) for one in marks]
    finally:
        clock.release()


@dataclass(frozen=True)
class TimedStep:
    """One step, integer nanoseconds.

    Attributes:
        phases_ns: in the order of `STEP_PHASES`; they add up to the step.
        forward: by row; ``None`` for a step with nothing attached.
        backward_ns: by row, without what it called; the rest of the backward phase, which
            belongs to none (the loss, the engine's start), is ``outside_ns``.
        backward_inclusive_ns: by row, with what it called.
        again_ns, again_inclusive_ns: the same of forwards that ran again within the backward.
        micro_batches_ns: of each micro-batch the phases before the optimizer; of a step with
            nothing attached.
        host_phases_ns: as ``phases_ns`` on the host's clock, of a step with nothing attached, where
            the device has its own.
    """

    phases_ns: tuple[int, ...]
    forward: Folded | None = None
    backward_ns: NDArray[np.int64] | None = None
    outside_ns: int = 0
    backward_inclusive_ns: NDArray[np.int64] | None = None
    again_ns: NDArray[np.int64] | None = None
    again_inclusive_ns: NDArray[np.int64] | None = None
    micro_batches_ns: tuple[tuple[int, ...], ...] = ()
    host_phases_ns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Timed:
    """A function of a model whose runs are timed.

    Attributes:
        module: the instance that it belongs to.
        attribute: ``forward``, or a method's name.
        row: where its time goes; several can share one.
    """

    module: nn.Module
    attribute: str
    row: int


@dataclass(frozen=True)
class _MicroBatch:
    """What was marked of a micro-batch.

    Attributes:
        marks: begin, and the ends of data, copy, getting ready, forward, loss, hooking, backward.
        calls: of the forward.
        places: of the forward and of what ran again.
        taken: marks of the backward, see `NodeMarks`.
    """

    marks: tuple[int, ...]
    calls: Sequence[Call]
    places: Places
    taken: Sequence[tuple[int, int]]


class Backward(Protocol):
    """What was marked of a backward."""

    @property
    def places(self) -> Places:
        """Of its forward, and of what ran again."""

    @property
    def taken(self) -> Sequence[tuple[int, int]]:
        """See `NodeMarks`."""


class StepTimer:
    """Times steps with nothing attached, and steps with parts of the model timed.

    Args:
        timed: what is timed; all else belongs to row 0.
        owners: the row that the gradients of a parameter, by its ``id``, belong to.
        rows: how many there are.
        clock: where marks come from.
        above: of each row the one that holds it, where rows lie in each other.

    Attributes:
        counts: whether calls count now; those in a backward always do.
    """

    def __init__(
        self,
        timed: Iterable[Timed],
        owners: Mapping[int, int],
        rows: int,
        clock: Clock,
        above: Mapping[int, int] | None = None,
    ) -> None:
        self.counts = True
        self._clock = clock
        self._rows = rows
        self._above = above or {}
        self._calls: list[Call] = []
        self._nodes = NodeMarks(owners, clock.mark)
        self._again = Again(self._nodes.during, self._hook_again)
        self._handles = ExitStack()
        self._marks = 0
        self._places = Places((), {}, 0, 0)
        self._replaced: list[Replacement] = [
            (what.module, what.attribute, self._timed(function, what.row))
            for what in timed
            for function in [function_at(what.module, what.attribute)]
        ]

    @classmethod
    def of_modules(
        cls, model: nn.Module, paths: Sequence[str], timed_paths: frozenset[str], clock: Clock
    ) -> Self:
        """A row for each module.

        Args:
            model: trained by the steps, in train mode.
            paths: row → path of the modules; ``paths[0]`` must be ``""``.
            timed_paths: those whose calls can be seen.
            clock: where marks come from.
        """
        row_of = {path: row for row, path in enumerate(paths)}
        instances = modules_at(model, timed_paths - {""})
        timed = [
            Timed(module, usual_place(module), row_of[path]) for path, module in instances.items()
        ]
        return cls(timed, owners_of(model, paths), len(paths), clock, rows_above(paths))

    def forward_only(self, call: Callable[[], object]) -> Folded:
        """Run a forward, such as inference, with the rows timed: nanoseconds by row."""
        clock = self._clock
        self._calls.clear()
        clock.reserve(self._marks)
        with attributes_replaced(self._replaced):
            start = clock.mark()
            call()
            end = clock.mark()
        clock.synchronize()
        try:
            return self._folded(self._calls, start, end, start)
        finally:
            self._marks = max(self._marks, 2 * len(self._calls) + 16)
            clock.release()

    def untouched(self, step: Step) -> TimedStep:
        """Run a step with marks between its phases and nothing else."""
        clock = self._clock
        clock.reserve(2 * len(STEP_PHASES) * step.micro_batches)
        marks = [mark for mark, _, _ in run_phases(step, clock.mark)]
        clock.synchronize()
        try:
            host = clock.resolve_host(marks)
            durations = _differences(clock.resolve(marks))
            return TimedStep(
                by_phase(durations),
                micro_batches_ns=by_micro_batch(durations),
                host_phases_ns=None if host is None else by_phase(_differences(host)),
            )
        finally:
            clock.release()

    def instrumented(self, step: Step) -> TimedStep:
        """Run a step with every row's part of the forward and of the backward timed.

        What is attached between forward and backward is part of no phase.
        """
        clock = self._clock
        clock.reserve(self._marks)
        marks: list[int] = []
        done: list[_MicroBatch] = []
        nodes: deque[Node] = deque()
        with recomputations_told(self._again), ExitStack() as attached:
            for mark, phase, made in run_phases(step, clock.mark):
                marks.append(mark)
                if phase == "copy":
                    self._calls, begin = [], _get_sequence_nr()
                    attached.enter_context(attributes_replaced(self._replaced))
                    marks.append(clock.mark())
                elif phase == "forward":
                    end = _get_sequence_nr()
                elif phase == "loss":
                    let_go(nodes)
                    self._places = Places(self._calls, self._above, begin, end)
                    self._handles = attached.enter_context(ExitStack())
                    nodes = self._nodes.hook([made], self._places, self._handles)
                    attached.enter_context(self._again.backward(self._places))
                    marks.append(clock.mark())
                elif phase == "backward":
                    done.append(self._micro_batch(marks))
                    attached.close()
                    marks = [clock.mark() if len(done) < step.micro_batches else mark]
        let_go(nodes)
        clock.synchronize()
        try:
            return self._timed_step(done, marks)
        finally:
            calls = sum(len(one.calls) + len(one.taken) for one in done)
            self._marks = max(self._marks, 2 * calls + 16 * len(done))
            clock.release()

    def _micro_batch(self, marks: Sequence[int]) -> _MicroBatch:
        return _MicroBatch(tuple(marks), self._calls, self._places, self._nodes.taken)

    def _hook_again(
        self, outputs: Sequence[torch.Tensor], place_of: PlaceOfNumber, other: int
    ) -> None:
        self._nodes.hook_again(outputs, place_of, other, self._places, self._handles)

    def _timed(self, original: Forward, index: int) -> Forward:
        mark, again, running = self._clock.mark, self._again, self._again.running

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling():
                return original(*args, **kwargs)
            if again.in_backward:
                with again.call(index):
                    return original(*args, **kwargs)
            if not self.counts:
                return original(*args, **kwargs)
            running.append(index)
            number = _get_sequence_nr()
            start = mark()
            try:
                return original(*args, **kwargs)
            finally:
                self._calls.append((index, start, mark(), number, _get_sequence_nr()))
                running.pop()

        return forward

    # --- adding up -------------------------------------------------------------------------

    def _timed_step(self, done: Sequence[_MicroBatch], last: Sequence[int]) -> TimedStep:
        origin = done[0].marks[0]  # one for all: what adds up does so to the last digit
        begin, end = self._clock.resolve(last, origin)
        step = added([self._timed_micro_batch(one, origin) for one in done])
        return replace(step, phases_ns=(*step.phases_ns, end - begin))

    def _timed_micro_batch(self, one: _MicroBatch, origin: int) -> TimedStep:
        positions = self._clock.resolve(one.marks, origin)
        start, data, copy, ready, forward, loss, hooked, backward = positions
        phases = (data - start, copy - data, forward - ready, loss - forward, backward - hooked)
        begins = self._clock.resolve([mark for _, mark in one.taken], origin)
        backward_step = self._backward_by_row(one, [hooked, *begins, backward])
        folded = self._folded(one.calls, one.marks[3], one.marks[4], origin)
        return replace(backward_step, phases_ns=phases, forward=folded)

    def _backward_by_row(self, one: Backward, positions: Sequence[int]) -> TimedStep:
        """What the rows took of a backward, between the positions of its marks."""
        spent, outside = spent_between(one.taken, positions)
        own, inclusive = one.places.added_up(spent, self._rows)
        again, again_inclusive = one.places.added_up(spent, self._rows, recomputed=True)
        return TimedStep((), None, own, outside, inclusive, again, again_inclusive)

    def _folded(self, calls: Sequence[Call], start: int, end: int, origin: int) -> Folded:
        """The calls between two marks, positions after a third."""
        marks = [mark for call in calls for mark in call[1:3]]
        first, last, *flat = self._clock.resolve([start, end, *marks], origin)
        spans = [
            (call[0], flat[2 * number], flat[2 * number + 1]) for number, call in enumerate(calls)
        ]
        return fold([*spans, (ROOT, first, last)], self._rows)


def added(steps: Sequence[TimedStep]) -> TimedStep:
    """Micro-batches together: phases and times of modules; calls as in the first."""
    forwards = [step.forward for step in steps if step.forward is not None]

    def total(name: str, of: Sequence[object] = steps) -> Any:  # noqa: ANN401 - numbers of a kind
        return sum(getattr(one, name) for one in of)

    names = ("backward_ns", "outside_ns", "backward_inclusive_ns", "again_ns", "again_inclusive_ns")
    return TimedStep(
        tuple(map(sum, zip(*(step.phases_ns for step in steps), strict=True))),
        Folded(total("inclusive_ns", forwards), total("self_ns", forwards), forwards[0].calls),
        **{name: total(name) for name in names},
    )


def _differences(positions: Sequence[int]) -> tuple[int, ...]:
    return tuple(after - before for before, after in pairwise(positions))
