"""Kernels of a training step, given to its phases and to modules, forward and backward.

A step runs under the profiler. A kernel of the forward belongs to the innermost module whose range
is around the operator that launched it; one of the backward to the module that was running when the
forward put the node into the graph that is being run, told by autograd's sequence number. No event
stands in the queue.

A forward that runs again within the backward is told apart: see `instruments.step_again`.

What adds up a parameter's gradient has no number. A hook behind it says whose the parameter is, and
it belongs to that module. Known limitations: as of `layerbench.instruments.step_timer`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import count
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._C._profiler import _RecordFunctionFast as RecordFunction
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
from layerbench.instruments.kernel_timer import profiled
from layerbench.instruments.kernels import (
    RANGE,
    HostEvent,
    Kernel,
    busy_ns,
    events_of,
    short_name,
)
from layerbench.instruments.modules import modules_at
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.step_again import Again, PlaceOfNumber
from layerbench.instruments.step_nodes import owned_parameters, rows_above
from layerbench.instruments.step_places import OUTSIDE, ROOT, Call, Places
from layerbench.instruments.step_timer import OF_MICRO_BATCH, Step, run_phases
from layerbench.records.training_step import STEP_PHASES

MARK = f"{RANGE}mark "
"""Begins the name of an empty range that stands where a phase ends; its number follows."""
OWNER = f"{RANGE}owner "
"""Begins the name of an empty range behind what adds up a gradient; the parameter's row follows."""
AGAIN = f"{RANGE}again "
"""Begins the name of the range around what runs again; its place follows."""
GRAPH = f"{RANGE}graph "
"""Begins the name of an empty range behind a recomputation with a graph of its own; its number."""
NODE = "autograd::engine::evaluate_function: "
"""Begins the name of the range that autograd puts around a node of the graph."""
FORWARD, BACKWARD = STEP_PHASES.index("forward"), STEP_PHASES.index("backward")


@dataclass(frozen=True)
class StepKernelKey:
    """Kernels that are added up: of one phase, module, node or operator, and name.

    Attributes:
        phase: its number.
        module: the row; `OUTSIDE` for what belongs to none.
        function: in the backward the node of the graph, else the outermost operator in the module.
        kernel: its name.
        recomputed: whether a forward that ran again launched them.
    """

    phase: int
    module: int
    function: str
    kernel: str
    recomputed: bool = False


@dataclass(frozen=True)
class KernelStep:
    """What the device did in one step, integer nanoseconds.

    Attributes:
        phases_ns: by phase, in which it worked; ``idle_ns``: from the first kernel's start to the
            last one's end, in which it did not. Together they are ``span_ns``.
        forward_ns, forward_inclusive_ns: by row, without what it called and with it.
        backward_ns, backward_inclusive_ns: the same; what belongs to no module is ``outside_ns``.
        again_ns, again_inclusive_ns: the same of what ran again within the backward. The rows' own
            times add up to their phase exactly, these with the backward's.
        counts: by row, kernels of both with those of what it called; ``phase_counts``: by phase.
        kernels: number of runs and nanoseconds.
    """

    phases_ns: tuple[int, ...]
    idle_ns: int
    span_ns: int
    forward_ns: NDArray[np.int64]
    forward_inclusive_ns: NDArray[np.int64]
    backward_ns: NDArray[np.int64]
    backward_inclusive_ns: NDArray[np.int64]
    outside_ns: int
    again_ns: NDArray[np.int64]
    again_inclusive_ns: NDArray[np.int64]
    counts: NDArray[np.int64]
    phase_counts: tuple[int, ...]
    kernels: Mapping[StepKernelKey, tuple[int, int]]


@dataclass(frozen=True)
class _Where:
    """Where an operator stands.

    Attributes:
        start_ns: on the profiler's clock.
        modules: that were running, the innermost last.
        place: of the node that is being run, see `Places`; `OUTSIDE` where there is none.
        function: the node, else the outermost operator in the innermost module.
        is_node: whether it is a node itself.
    """

    start_ns: int
    modules: tuple[int, ...] = (ROOT,)
    place: int = OUTSIDE
    function: str = ""
    is_node: bool = False


@dataclass
class StepPlaces:
    """Where the nodes of one micro-batch's backward were made.

    Attributes:
        forward: and of what ran again.
        graphs: of graphs that a recomputation made, by `GRAPH`: the place of each number.
    """

    forward: Places
    graphs: list[Callable[[int], int]] = field(default_factory=list)


def added_up(
    host: Sequence[HostEvent], kernels: Sequence[Kernel], parts: Sequence[StepPlaces], rows: int
) -> KernelStep:
    """Give each kernel's time to a phase and, in forward and backward, to a module.

    Args:
        host: operators, ranges and nodes of one step, in any order.
        kernels: what the device ran, in any order. One that no operator launched belongs to the
            phase of the one before it.
        parts: of each micro-batch.
        rows: how many there are.
    """
    ends = sorted(event.start_ns for event in host if event.name.startswith(MARK))
    where = {
        number: one
        for events in _by_thread(host)
        for number, one in _places(events, lambda moment: parts[_part(moment, ends)])
    }
    own, inclusive, counts = (np.zeros(rows, dtype=np.int64) for _ in range(3))
    phases, phase_counts = [0] * len(STEP_PHASES), [0] * len(STEP_PHASES)
    spent: list[Counter[int]] = [Counter() for _ in parts]
    ran: list[Counter[int]] = [Counter() for _ in parts]
    sums: dict[StepKernelKey, tuple[int, int]] = {}
    phase = 0
    in_order = sorted(kernels, key=lambda kernel: (kernel.start_ns, kernel.end_ns))
    for kernel, time in zip(in_order, busy_ns(in_order), strict=True):
        operator = where.get(kernel.launched_by)
        if operator is not None:
            phase = _phase(operator.start_ns, ends)
        operator = operator or _Where(0)
        phases[phase] += time
        phase_counts[phase] += 1
        module, recomputed = OUTSIDE, False
        if phase == FORWARD:
            module, within = operator.modules[-1], list(set(operator.modules))
            own[module] += time
            inclusive[within] += time
            counts[within] += 1
        elif phase == BACKWARD:
            part = _part(operator.start_ns, ends)
            places = parts[part].forward
            module, recomputed = places.row(operator.place), places.is_recomputed(operator.place)
            spent[part][operator.place] += time
            ran[part][operator.place] += 1
        key = StepKernelKey(phase, module, operator.function, kernel.name, recomputed)
        runs, earlier = sums.get(key, (0, 0))
        sums[key] = runs + 1, earlier + time
    outside = sum(one.pop(OUTSIDE, 0) for one in spent)
    for one in ran:
        one.pop(OUTSIDE, 0)
    (backward, backward_inclusive), again = (
        sums_of_parts(parts, spent, rows, recomputed=recomputed) for recomputed in (False, True)
    )
    for recomputed in (False, True):
        counts += sums_of_parts(parts, ran, rows, recomputed=recomputed)[1]
    span = _span(in_order)
    return KernelStep(
        phases_ns=tuple(phases),
        idle_ns=span - sum(phases),
        span_ns=span,
        forward_ns=own,
        forward_inclusive_ns=inclusive,
        backward_ns=backward,
        backward_inclusive_ns=backward_inclusive,
        outside_ns=outside,
        again_ns=again[0],
        again_inclusive_ns=again[1],
        counts=counts,
        phase_counts=tuple(phase_counts),
        kernels=sums,
    )


def sums_of_parts(
    parts: Sequence[StepPlaces], spent: Sequence[Counter[int]], rows: int, *, recomputed: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `Places.added_up`, all micro-batches together."""
    sums = [
        part.forward.added_up(one, rows, recomputed=recomputed)
        for part, one in zip(parts, spent, strict=True)
    ]
    return sum(own for own, _ in sums), sum(inclusive for _, inclusive in sums)  # type: ignore[return-value]


def _span(kernels: Sequence[Kernel]) -> int:
    if not kernels:
        return 0
    return max(kernel.end_ns for kernel in kernels) - kernels[0].start_ns


def _phase(moment: int, ends: Sequence[int]) -> int:
    """The phase by its number; ``ends`` begins with the step's start."""
    at = _at(moment, ends)
    return len(STEP_PHASES) - 1 if at >= len(ends) - 2 else at % OF_MICRO_BATCH


def _part(moment: int, ends: Sequence[int]) -> int:
    """The micro-batch by its number; what comes after the last one belongs to it."""
    return min(_at(moment, ends), max(0, len(ends) - 3)) // OF_MICRO_BATCH


def _at(moment: int, ends: Sequence[int]) -> int:
    """After how many of the phases' ends a moment lies."""
    return max(bisect_right(ends, moment) - 1, 0)


def _by_thread(host: Sequence[HostEvent]) -> Iterator[list[HostEvent]]:
    threads: dict[int, list[HostEvent]] = defaultdict(list)
    for event in sorted(host, key=lambda event: (event.start_ns, -event.end_ns)):
        threads[event.thread].append(event)
    yield from threads.values()


def _places(
    events: Sequence[HostEvent], part_at: Callable[[int], StepPlaces]
) -> Iterator[tuple[int, _Where]]:
    """Number of each event of one thread, and where it stands."""
    owners, before = _owners(events), OUTSIDE
    # The graph that a recomputation made is gone through until its node ends.
    graphs: list[tuple[int, Callable[[int], int]]] = []
    running: list[tuple[int, _Where]] = []  # (end, where) of what is running, the innermost last
    for event in events:
        while running and running[-1][0] <= event.start_ns:
            running.pop()
        around = running[-1][1] if running else _Where(0)
        while graphs and graphs[-1][0] <= event.start_ns:
            graphs.pop()
        here = replace(around, start_ns=event.start_ns)
        if event.name.startswith(NODE):
            part, owner = part_at(event.start_ns), owners.get(event.number)
            of_number = graphs[-1][1] if graphs else part.forward.of_number
            found = part.forward.home(owner) if owner is not None else of_number(event.sequence)
            if owner is None and event.sequence < 0:
                found = before  # a gradient of no module's parameter: who gave it comes before
            place = before = around.place if found == OUTSIDE else found
            here = replace(here, place=place, function=short_name(event.name[len(NODE) :]))
        elif event.name.startswith(AGAIN):
            here = replace(here, place=int(event.name[len(AGAIN) :]), function="")
        elif event.name.startswith(GRAPH):
            made = part_at(event.start_ns).graphs[int(event.name[len(GRAPH) :])]
            node = next((end for end, one in reversed(running) if one.is_node), event.end_ns)
            graphs.append((node, made))
        elif event.name.startswith(RANGE) and event.name[len(RANGE) :].isdecimal():
            modules = (*around.modules, int(event.name[len(RANGE) :]))
            function = "" if around.place == OUTSIDE else around.function
            here = replace(here, modules=modules, function=function)
        elif not around.function:
            here = replace(here, function=short_name(event.name))
        here = replace(here, is_node=event.name.startswith(NODE))
        yield event.number, here
        running.append((event.end_ns, here))


def _owners(events: Sequence[HostEvent]) -> Mapping[int, int]:
    """Of nodes that add up a gradient, by their numbers, the row of the parameter's module."""
    owners: dict[int, int] = {}
    running: list[HostEvent] = []  # nodes, the innermost last
    for event in events:
        while running and running[-1].end_ns <= event.start_ns:
            running.pop()
        if event.name.startswith(NODE):
            running.append(event)
        elif event.name.startswith(OWNER) and running:
            owners[running[-1].number] = int(event.name[len(OWNER) :])
    return owners


class StepKernelTimer:
    """Runs steps under the profiler and gives their kernels to the modules of a model.

    Args:
        model: trained by the steps, in train mode.
        paths: row → path of the modules; ``paths[0]`` must be ``""``.
        timed_paths: those whose calls can be seen.
        device: where it trains.
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], timed_paths: frozenset[str], device: Device
    ) -> None:
        self._device = device
        self._wait = device.clock().synchronize
        self._rows = len(paths)
        self._calls: list[Call] = []
        self._again = Again(self._during, self._note_graph)
        self._parts: list[StepPlaces] = []
        row_of = {path: row for row, path in enumerate(paths)}
        self._above = rows_above(paths)
        self._owned = owned_parameters(model, paths)
        self._replaced: list[Replacement] = [
            (module, place, self._ranged(function_at(module, place), row_of[path]))
            for path, module in modules_at(model, timed_paths - {""}).items()
            for place in [usual_place(module)]
        ]

    def _ranged(self, original: Forward, row: int) -> Forward:
        name, again, running = f"{RANGE}{row}", self._again, self._again.running

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling():
                return original(*args, **kwargs)
            if again.in_backward:
                with again.call(row):
                    return original(*args, **kwargs)
            running.append(row)
            number, start = _get_sequence_nr(), perf_counter_ns()
            try:
                with RecordFunction(name):
                    return original(*args, **kwargs)
            finally:
                self._calls.append((row, start, perf_counter_ns(), number, _get_sequence_nr()))
                running.pop()

        return forward

    @contextmanager
    def _during(self, place: int) -> Iterator[None]:
        with RecordFunction(f"{AGAIN}{place}"):
            yield

    def _note_graph(
        self, outputs: Sequence[torch.Tensor], place_of: PlaceOfNumber, other: int
    ) -> None:
        del outputs, other
        graphs = self._parts[-1].graphs
        graphs.append(place_of)
        with RecordFunction(f"{GRAPH}{len(graphs) - 1}"):
            pass

    def run(self, step: Step) -> KernelStep:
        """Run one step under the profiler and add its kernels up."""
        self._parts = []
        with self._owners_told(), recomputations_told(self._again):
            results = profiled(self._step(step), self._device)
        host, kernels = events_of(results)
        return added_up(host, kernels, self._parts, self._rows)

    @contextmanager
    def _owners_told(self) -> Iterator[None]:
        """Let an empty range stand behind what adds up a parameter's gradient."""
        with ExitStack() as told:
            for parameter, row in self._owned:
                if parameter.requires_grad and parameter.is_leaf:
                    told.enter_context(_telling(parameter, f"{OWNER}{row}"))
            yield

    def _step(self, step: Step) -> Callable[[], None]:
        """A step that notes where in its forwards the nodes are made."""
        marks = count()

        def mark() -> int:
            number = next(marks)
            with RecordFunction(f"{MARK}{number}"):
                return number

        def forward(batch: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
            self._calls = []
            begin = _get_sequence_nr()
            with attributes_replaced(self._replaced):
                output = step.forward(batch)
            places = Places(self._calls, self._above, begin, _get_sequence_nr())
            self._parts.append(StepPlaces(places))
            return output

        def backward(loss: torch.Tensor) -> None:
            places = self._parts[-1].forward
            with attributes_replaced(self._replaced), self._again.backward(places):
                step.backward(loss)

        pieces = replace(step, forward=forward, backward=backward)

        def run() -> None:
            for _ in run_phases(pieces, mark):
                pass
            self._wait()

        return run


@contextmanager
def _telling(parameter: torch.Tensor, name: str) -> Iterator[None]:
    """Put an empty range of this name behind what adds up a gradient."""

    def tell(_: torch.Tensor) -> None:
        with RecordFunction(name):
            pass

    register: Callable[..., Any] = parameter.register_post_accumulate_grad_hook
    had_none = parameter._post_accumulate_grad_hooks is None
    handle = register(tell)
    try:
        yield
    finally:
        handle.remove()
        if had_none:
            parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]


def stacked(steps: Sequence[KernelStep], name: str) -> NDArray[np.int64]:
    """A field of the steps, shape (steps, ...)."""
    return np.array([getattr(step, name) for step in steps], dtype=np.int64)
