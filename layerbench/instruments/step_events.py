"""Events in a training step, where the profiler sees no kernels: times of phases and of modules.

An event stands where a phase ends, where a piece of work of the forward ends, and in the backward
where the nodes of another module begin. Meanwhile the queue is blocked, until the host has issued
the step, and what an event itself takes is taken off. The batch has a block of its own: on some
devices its copy waits for the device, which the rest of the step need not bear.

Known limitations: as of `layerbench.instruments.step_timer` and `.forward_marks`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.compiler import is_dynamo_compiling

from layerbench.environment.devices import Device
from layerbench.instruments.attach import (
    Forward,
    Replacement,
    attributes_replaced,
    function_at,
    usual_place,
)
from layerbench.instruments.borders import EXIT, added_up, running_in
from layerbench.instruments.event_timer import EventTimes, event_times
from layerbench.instruments.forward_marks import ForwardMarks
from layerbench.instruments.modules import modules_at
from layerbench.instruments.queue_block import QueueBlock
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.step_again import Again, PlaceOfNumber
from layerbench.instruments.step_kernels import KernelStep, stacked
from layerbench.instruments.step_nodes import (
    Node,
    NodeMarks,
    let_go,
    owners_of,
    rows_above,
    spent_between,
)
from layerbench.instruments.step_places import OUTSIDE, Places
from layerbench.instruments.step_timer import Step, run_phases

# Marks of a step besides those of modules and nodes.
_OTHERS = 16


@dataclass(frozen=True)
class _MicroBatch:
    """What was marked of a micro-batch.

    Attributes:
        marks: begin, and the ends of data, copy, forward, loss, hooking, backward.
        crossed, borders: of the forward, see `Borders`, and the marks there.
        places: of the forward and of what ran again.
        taken: marks of the backward, see `NodeMarks`.
    """

    marks: tuple[int, ...]
    crossed: Sequence[int]
    borders: Sequence[int]
    places: Places
    taken: Sequence[tuple[int, int]]


class StepEventTimer:
    """Runs steps with events in them and gives the times between these to a model's modules.

    The first `run` is one in which the forward is observed, and no queue blocked: no sample.

    Args:
        model: trained by the steps, in train mode.
        paths: row → path of the modules; ``paths[0]`` must be ``""``.
        timed_paths: those whose calls can be seen.
        device: where it trains.

    Attributes:
        has_run: whether a step has run to its end.
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], timed_paths: frozenset[str], device: Device
    ) -> None:
        self.has_run = False
        self._device = device
        self._clock = device.clock()
        self._paths = tuple(paths)
        self._above = rows_above(paths)
        mark, kind = self._clock.mark, device.torch_device.type
        self._forward = ForwardMarks(model, paths, timed_paths, kind, mark, count=_get_sequence_nr)
        self._nodes = NodeMarks(owners_of(model, paths), mark)
        self._again = Again(self._nodes.during, self._hook_again, self._innermost)
        row_of = {path: row for row, path in enumerate(paths)}
        self._replaced: list[Replacement] = [
            (module, place, self._followed(function_at(module, place), row_of[path]))
            for path, module in modules_at(model, timed_paths - {""}).items()
            for place in [usual_place(module)]
        ]
        self._handles = ExitStack()
        self._places = Places((), {}, 0, 0)
        self._of_batch = QueueBlock(device, "copy of the batch", "its device time")
        self._of_rest = QueueBlock(device, "step")
        self._marks = self._forward.marks + _OTHERS
        self._pieces: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @cached_property
    def _event_times(self) -> EventTimes:
        return event_times(self._device)

    @property
    def event_cost_ns(self) -> int:
        """Nanoseconds that an event takes on the queue; 0 where that cannot be told."""
        return self._event_times.cost_ns

    @property
    def resolution_ns(self) -> int:
        """Nanoseconds of the shortest piece of work that two events tell from nothing."""
        return self._event_times.resolution_ns

    @property
    def is_blocking(self) -> bool:
        """Whether the times are the device's alone: not where the queue cannot be blocked."""
        return self._of_rest.is_blocking

    def run(self, step: Step) -> KernelStep:
        """Run one step and add the pieces up. Nothing is idle: nobody knows what is between."""
        cost, clock = self.event_cost_ns, self._clock
        parts: list[_MicroBatch] = []
        clock.reserve(self._marks)
        try:
            last = self._marked(step, parts)
            self.has_run = True
            clock.synchronize()
            return self._added_up(parts, last, cost)
        finally:
            taken = sum(len(part.crossed) + len(part.taken) + _OTHERS for part in parts)
            self._marks = max(self._marks, taken)
            clock.release()

    def _marked(self, step: Step, parts: list[_MicroBatch]) -> tuple[int, int]:
        """Run a step; the marks around its last phase."""
        marks: list[int] = []
        nodes: deque[Node] = deque()
        with recomputations_told(self._again), ExitStack() as attached, ExitStack() as blocked:
            blocked.enter_context(self._of_batch.on())
            for mark, done, made in run_phases(self._with_borders(step), self._clock.mark):
                marks.append(mark)
                if done == "copy":
                    blocked.close()
                    blocked.enter_context(self._of_rest.on())
                elif done == "loss":
                    let_go(nodes)
                    self._places = self._places_of_forward()
                    self._handles = attached.enter_context(ExitStack())
                    nodes = self._nodes.hook([made], self._places, self._handles)
                    attached.enter_context(attributes_replaced(self._replaced))
                    attached.enter_context(self._again.backward(self._places))
                    marks.append(self._clock.mark())
                elif done == "backward":
                    attached.close()
                    parts.append(self._micro_batch(marks))
                    if len(parts) < step.micro_batches:
                        blocked.close()
                        blocked.enter_context(self._of_batch.on())
                        marks = [self._clock.mark()]
        let_go(nodes)
        return marks[-2], marks[-1]

    def _micro_batch(self, marks: Sequence[int]) -> _MicroBatch:
        borders = self._forward.borders
        return _MicroBatch(
            tuple(marks), borders.crossed, borders.marks, self._places, self._nodes.taken
        )

    def _with_borders(self, step: Step) -> Step:
        def forward(batch: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
            outputs: list[Any] = []
            self._forward.run(lambda: outputs.append(step.forward(batch)))
            return outputs.pop()

        return replace(step, forward=forward)

    def _places_of_forward(self) -> Places:
        borders = self._forward.borders
        numbers = borders.numbers
        calls = _calls(borders.crossed, numbers)
        return Places(list(calls), self._above, numbers[0], numbers[-1])

    # --- what runs again in the backward ---------------------------------------------------

    def _innermost(self) -> int:
        """The row of the innermost module that runs in the forward."""
        return running_in(self._forward.borders.crossed)

    def _followed(self, original: Forward, row: int) -> Forward:
        again = self._again

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or not again.in_backward:
                return original(*args, **kwargs)
            with again.call(row):
                return original(*args, **kwargs)

        return forward

    def _hook_again(
        self, outputs: Sequence[torch.Tensor], place_of: PlaceOfNumber, other: int
    ) -> None:
        self._nodes.hook_again(outputs, place_of, other, self._places, self._handles)

    # --- adding up -------------------------------------------------------------------------

    def _added_up(
        self, parts: Sequence[_MicroBatch], last: tuple[int, int], cost_ns: int
    ) -> KernelStep:
        begin, end = self._clock.resolve(last, parts[0].marks[0])
        origin, count = parts[0].marks[0], len(parts)
        steps = [self._added_up_part(part, count, origin, cost_ns) for part in parts]
        sums = {
            name: sum(getattr(step, name) for step in steps)
            for name in (
                "forward_ns",
                "forward_inclusive_ns",
                "backward_ns",
                "backward_inclusive_ns",
                "outside_ns",
                "again_ns",
                "again_inclusive_ns",
            )
        }
        phases = tuple(map(sum, zip(*(step.phases_ns for step in steps), strict=True)))
        phases = (*phases, max(0, end - begin - cost_ns))
        whole = replace(steps[0], **sums)
        return replace(
            whole, phases_ns=phases, span_ns=sum(phases), phase_counts=(0,) * len(phases)
        )

    def _added_up_part(
        self, part: _MicroBatch, parts: int, origin: int, cost_ns: int
    ) -> KernelStep:
        def resolved(of: Sequence[int]) -> list[int]:
            return self._clock.resolve(of, origin)

        def length(start: int, end: int) -> int:
            return max(0, end - start - cost_ns)

        rows = len(self._paths)
        start, data, copy, forward, loss, hooked, backward = resolved(part.marks)
        modules = added_up(part.crossed, resolved(part.borders), cost_ns, rows)
        begins = resolved([mark for _, mark in part.taken])
        spent, outside = spent_between(part.taken, [hooked, *begins, backward], cost_ns)
        own, inclusive = part.places.added_up(spent, rows)
        again, again_inclusive = part.places.added_up(spent, rows, recomputed=True)
        self._pieces = (
            self._forward.pieces(modules.calls) * parts,
            _pieces_of_backward(part, rows) * parts,
        )
        phases = (
            length(start, data),
            length(data, copy),
            modules.span_ns,
            length(forward, loss),
            int(own.sum()) + int(again.sum()) + outside,
        )
        return KernelStep(
            phases_ns=phases,
            idle_ns=0,
            span_ns=sum(phases),
            forward_ns=modules.self_ns,
            forward_inclusive_ns=modules.inclusive_ns,
            backward_ns=own,
            backward_inclusive_ns=inclusive,
            outside_ns=outside,
            again_ns=again,
            again_inclusive_ns=again_inclusive,
            counts=np.zeros(rows, dtype=np.int64),
            phase_counts=(0,) * len(phases),
            kernels={},
        )

    # --- what there is to say --------------------------------------------------------------

    def below_resolution(self, steps: Sequence[KernelStep]) -> tuple[tuple[int, ...], ...]:
        """Rows whose pieces of work are too short for the clock: forward, backward.

        As of `layerbench.instruments.event_timer.EventTimer.below_resolution`.
        """
        if not steps or self._pieces is None:
            return (), ()
        fields = ("forward_inclusive_ns", "backward_inclusive_ns")
        return tuple(
            _below(stacked(steps, name), pieces * self.resolution_ns)
            for name, pieces in zip(fields, self._pieces, strict=True)
        )

    def forget(self) -> None:
        """Let `notes` speak only of steps from here on."""
        for part in (self._forward, self._of_batch, self._of_rest):
            part.forget()

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the steps so far."""
        steps = self._forward.forwards
        blocks = (*self._of_rest.notes(steps), *self._of_batch.notes(steps))
        return tuple(dict.fromkeys((*self._forward.notes(), *blocks)))


def _pieces_of_backward(part: _MicroBatch, rows: int) -> NDArray[np.int64]:
    """Of each row: between two marks."""
    counts = Counter(place for place, _ in part.taken)
    counts.pop(OUTSIDE, None)
    return part.places.added_up(counts, rows)[1]


def _calls(
    crossed: Sequence[int], numbers: Sequence[int]
) -> Iterator[tuple[int, int, int, int, int]]:
    """The calls of a forward in the order in which they ended, as `Places` takes them."""
    begun: list[int] = []
    for at, border in enumerate(crossed):
        if border >= 0:
            begun.append(at)
            continue
        start = begun.pop()
        if border != EXIT:
            yield ~border, start, at, numbers[start], numbers[at]


def _below(times: NDArray[np.int64], least: NDArray[np.int64]) -> tuple[int, ...]:
    """Rows whose median is shorter than the least that is told of them."""
    below = (np.median(times, axis=0) < least) & (least > 0)
    return tuple(int(row) for row in np.flatnonzero(below))
