"""To which module and operator each kernel of a forward belongs, and how long it kept the device.

The profiler tells when each kernel ran, on the device's own clock, and which operator launched it;
the operator lies within the ranges that were put around the modules. No event stands in the
device's queue, so that the kernels follow each other as they do untouched.

Time is handed out slice by slice: while several kernels run at once, a slice belongs to the one
that began first. So the rows' times and the time in which the device was idle add up to the span
from the first kernel's start to the last one's end, exactly, in integer nanoseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerbench.records.bounds import Shape

COMPILED = "compiled"
"""The function of what `torch.compile` made, by whatever number PyTorch counts it in a process."""
_COMPILED = "Torch-Compiled Region"

RANGE = "layerbench:"
"""Begins the name of a range around a module's call; the module's index follows."""

ROOT = 0


@dataclass(frozen=True)
class HostEvent:
    """One operator, or one range around a module, as the host ran it.

    Attributes:
        number: by which a kernel names the operator that launched it.
        thread: which of the host's threads.
        start_ns, end_ns: on the profiler's clock.
        sequence: autograd's number of what its forward put into the graph; below 0 for none.
        shapes: of its tensors, where they were asked for.
    """

    name: str
    number: int
    thread: int
    start_ns: int
    end_ns: int
    sequence: int = -1
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """One kernel, copy or fill that the device ran.

    Attributes:
        launched_by: number of the operator; 0 where nobody knows.
        start_ns, end_ns: on the profiler's clock.
        device: the number of the device that ran it.
    """

    name: str
    launched_by: int
    start_ns: int
    end_ns: int
    device: int = 0


@dataclass(frozen=True)
class Place:
    """Where an operator stands.

    Attributes:
        modules: indices of the modules that were running, the innermost last.
        function: the outermost operator within the innermost module; "" for a module's range.
    """

    modules: tuple[int, ...]
    function: str


NOWHERE = Place((ROOT,), "")


Spot = tuple[int, str]
"""A module's index and the name of one of its functions, or "" for the module itself."""


@dataclass(frozen=True)
class FunctionCalls:
    """Calls of one function of a module in one forward, and the shapes of the first's tensors."""

    calls: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class KernelKey:
    """Kernels that are added up: of one module, one of its functions, one name."""

    module: int
    function: str
    kernel: str


@dataclass(frozen=True)
class KernelForward:
    """One forward's kernels, added up.

    Attributes:
        inclusive_ns, self_ns: shape (modules,), integer nanoseconds in which the device worked for
            a module: with the modules called meanwhile, and without. The root's inclusive time is
            the sum of all self times.
        calls: shape (modules,); of the modules' ranges.
        span_ns: from the start of the first kernel to the end of the last.
        idle_ns: of that, when no kernel ran. ``inclusive_ns[0] + idle_ns == span_ns``.
        counts: shape (modules,); kernels that ran for a module and the modules called meanwhile.
        kernels: number of runs and nanoseconds by module, function and name.
        functions: those that launched kernels, by module and name.
        order: of the first calls of modules, with "" for a name, and functions, on one count.
        devices: how many devices ran kernels.
    """

    inclusive_ns: NDArray[np.int64]
    self_ns: NDArray[np.int64]
    calls: NDArray[np.int64]
    span_ns: int
    idle_ns: int
    counts: NDArray[np.int64]
    kernels: Mapping[KernelKey, tuple[int, int]]
    functions: Mapping[Spot, FunctionCalls]
    order: Mapping[Spot, int]
    devices: int = 1


def places_of(host: Sequence[HostEvent], modules: int) -> Mapping[int, Place]:
    """Where operators and ranges stand, by their numbers.

    Args:
        host: as for `added_up`.
        modules: how many indices there are.
    """
    seen = _Seen(modules)
    seen.look_at(host)
    return seen.places


def added_up(host: Sequence[HostEvent], kernels: Sequence[Kernel], modules: int) -> KernelForward:
    """Give each kernel's time to the module and function that launched it.

    Args:
        host: operators and ranges of one forward, in any order.
        kernels: what the device ran, in any order.
        modules: how many indices there are.
    """
    seen = _Seen(modules)
    seen.look_at(host)
    own, inclusive, counts = (np.zeros(modules, dtype=np.int64) for _ in range(3))
    sums: dict[KernelKey, tuple[int, int]] = {}
    launching: dict[Spot, FunctionCalls] = {}
    in_order = sorted(kernels, key=lambda kernel: (kernel.start_ns, kernel.end_ns))
    for kernel, time in zip(in_order, busy_ns(in_order), strict=True):
        place = seen.places.get(kernel.launched_by, NOWHERE)
        module = place.modules[-1]
        own[module] += time
        for index in set(place.modules):
            inclusive[index] += time
            counts[index] += 1
        key = KernelKey(module, place.function, kernel.name)
        runs, earlier = sums.get(key, (0, 0))
        sums[key] = runs + 1, earlier + time
        if place.function:
            launching[module, place.function] = seen.functions[module, place.function]
    starts, ends = [k.start_ns for k in kernels], [k.end_ns for k in kernels]
    span = max(ends) - min(starts) if kernels else 0
    return KernelForward(
        inclusive_ns=inclusive,
        self_ns=own,
        calls=seen.calls,
        span_ns=span,
        idle_ns=span - int(inclusive[ROOT]),
        counts=counts,
        kernels=sums,
        functions=launching,
        order=seen.order,
        devices=len({kernel.device for kernel in kernels}),
    )


def busy_ns(kernels: Sequence[Kernel]) -> list[int]:
    """For each kernel the time that the device worked for it: what runs beside it shares none.

    While several run, the time is the one's that began first.

    Args:
        kernels: in the order of their starts.

    Example:
        >>> busy_ns([Kernel("a", 1, 0, 10), Kernel("b", 2, 4, 16), Kernel("c", 3, 20, 25)])
        [10, 6, 5]
    """
    times = [0] * len(kernels)
    running: list[tuple[int, int]] = []  # (number in the order of starts, end)
    at = 0

    def hand_out(until: int | None) -> None:
        """Hand the time up to here out to those that run."""
        nonlocal at
        while running and (until is None or at < until):
            number, end = running[0]
            if end <= at:
                heappop(running)
                continue
            stop = end if until is None else min(end, until)
            times[number] += stop - at
            at = stop

    for number, kernel in enumerate(kernels):
        hand_out(kernel.start_ns)
        at = max(at, kernel.start_ns)
        heappush(running, (number, kernel.end_ns))
    hand_out(None)
    return times


class _Seen:
    """Where the host's operators stand.

    Attributes:
        places: of each operator and range, by its number.
        calls: shape (modules,).
        functions: what each module ran itself, whether or not it launched a kernel.
        order: as in `KernelForward`.
    """

    def __init__(self, modules: int) -> None:
        self.places: dict[int, Place] = {}
        self.calls = np.zeros(modules, dtype=np.int64)
        self.functions: dict[Spot, FunctionCalls] = {}
        self.order: dict[Spot, int] = {}

    def look_at(self, host: Sequence[HostEvent]) -> None:
        """Walk through each thread's events, keeping what is running."""
        for together in _by_thread(host):
            running: list[tuple[int, Place]] = []  # (end, place), the innermost last
            for event in together:
                while running and running[-1][0] <= event.start_ns:
                    running.pop()
                around = running[-1][1] if running else NOWHERE
                place = _within(event, around)
                self._count(event, around, place)
                self.places[event.number] = place
                running.append((event.end_ns, place))

    def _count(self, event: HostEvent, around: Place, place: Place) -> None:
        spot = place.modules[-1], place.function
        if event.name.startswith(RANGE):
            self.calls[spot[0]] += 1
        elif not around.function:
            calls = self.functions.get(spot)
            self.functions[spot] = FunctionCalls(
                1 + (calls.calls if calls else 0), calls.shapes if calls else event.shapes
            )
        self.order.setdefault(spot, len(self.order))


def _within(event: HostEvent, around: Place) -> Place:
    if event.name.startswith(RANGE):
        index = int(event.name[len(RANGE) :])
        return NOWHERE if index == ROOT else Place((*around.modules, index), "")
    return around if around.function else Place(around.modules, short_name(event.name))


def _by_thread(host: Sequence[HostEvent]) -> Iterable[list[HostEvent]]:
    threads: dict[int, list[HostEvent]] = defaultdict(list)
    for event in sorted(host, key=lambda event: (event.start_ns, -event.end_ns)):
        threads[event.thread].append(event)
    return threads.values()


def short_name(operator: str) -> str:
    """An operator as its author would write it; what `torch.compile` made is `COMPILED`.

    Example:
        >>> short_name("aten::add_"), short_name("Torch-Compiled Region: 0/0")
        ('add_', 'compiled')
    """
    if operator.startswith(_COMPILED):
        return COMPILED
    return operator.rpartition("::")[2]


# --- from torch.profiler ------------------------------------------------------------------


def events_of(results: Any) -> tuple[list[HostEvent], list[Kernel]]:  # noqa: ANN401
    """What the profiler saw on the host and on the device.

    Args:
        results: ``prof.profiler.kineto_results`` of a `torch.profiler.profile` that has ended.

    The raw events, because working out torch's own (`profile.events`) takes ten times as long.
    """
    host: list[HostEvent] = []
    kernels: list[Kernel] = []
    for event in results.events():
        start = event.start_ns()
        if event.device_type().name != "CPU":
            if _is_work(event):
                kernels.append(
                    Kernel(
                        event.name(),
                        event.linked_correlation_id(),
                        start,
                        start + event.duration_ns(),
                        event.device_index(),
                    )
                )
        elif event.linked_correlation_id() == 0 and not _is_of_driver(event):
            host.append(
                HostEvent(
                    event.name(),
                    event.correlation_id(),
                    event.start_thread_id(),
                    start,
                    start + event.duration_ns(),
                    event.sequence_nr(),
                    _shapes(event),
                )
            )
    return host, kernels


def _shapes(event: Any) -> tuple[Shape, ...]:  # noqa: ANN401 - torch's private class
    return tuple(tuple(shape) for shape in event.shapes() if shape)


# What stands on a device's axis besides kernels, copies and fills: ranges that are repeated there,
# and waits of queues for each other.
_NO_WORK = (
    *("user_annotation", "gpu_user_annotation", "cuda_sync", "cuda_event", "xpu_sync"),
    *("overhead", "cuda_profiler_range", "mtia_counters", "xpu_scope_profiler"),
)
_NAMES_OF_WAITS = ("Context Sync", "Stream Sync", "Event Sync", "Stream Wait Event", "Event Record")


def _is_work(event: Any) -> bool:  # noqa: ANN401 - torch's private class
    """Whether the device worked for it; before `activity_type` was there names have to tell."""
    kind = getattr(event, "activity_type", None)
    if kind is not None and str(kind()) in _NO_WORK:
        return False
    is_range = getattr(event, "is_user_annotation", None)
    if is_range is not None and is_range():
        return False
    return not event.name().startswith((RANGE, *_NAMES_OF_WAITS))


# The driver's calls are numbered apart from the operators: the numbers overlap.
_DRIVERS = ("cuda", "hip", "cuLaunch", "cuMem", "ze", "mtia")


def _is_of_driver(event: Any) -> bool:  # noqa: ANN401 - torch's private class
    """Whether it is a call of the device's driver; PyTorch tells the kind from 2.10 on."""
    kind = getattr(event, "activity_type", None)
    if kind is not None:
        return str(kind()) not in ("cpu_op", "user_annotation", "python_function")
    return bool(event.name().startswith(_DRIVERS))
