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
    """

    name: str
    number: int
    thread: int
    start_ns: int
    end_ns: int
    sequence: int = -1


@dataclass(frozen=True)
class Kernel:
    """One kernel, copy or fill that the device ran.

    Attributes:
        launched_by: number of the operator; 0 where nobody knows.
        start_ns, end_ns: on the profiler's clock.
    """

    name: str
    launched_by: int
    start_ns: int
    end_ns: int


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
        kernels: number of runs and nanoseconds by module, function and name.
        functions: calls of the functions that launched kernels, by module and name, in order of
            first call.
    """

    inclusive_ns: NDArray[np.int64]
    self_ns: NDArray[np.int64]
    calls: NDArray[np.int64]
    span_ns: int
    idle_ns: int
    kernels: Mapping[KernelKey, tuple[int, int]]
    functions: Mapping[tuple[int, str], int]


def added_up(host: Sequence[HostEvent], kernels: Sequence[Kernel], modules: int) -> KernelForward:
    """Give each kernel's time to the module and function that launched it.

    Args:
        host: operators and ranges of one forward, in any order.
        kernels: what the device ran, in any order.
        modules: how many indices there are.
    """
    places, calls, functions = _places(host, modules)
    own = np.zeros(modules, dtype=np.int64)
    inclusive = np.zeros(modules, dtype=np.int64)
    sums: dict[KernelKey, tuple[int, int]] = {}
    launching: dict[tuple[int, str], int] = {}
    in_order = sorted(kernels, key=lambda kernel: (kernel.start_ns, kernel.end_ns))
    for kernel, time in zip(in_order, busy_ns(in_order), strict=True):
        place = places.get(kernel.launched_by, NOWHERE)
        module = place.modules[-1]
        own[module] += time
        for index in set(place.modules):
            inclusive[index] += time
        key = KernelKey(module, place.function, kernel.name)
        runs, earlier = sums.get(key, (0, 0))
        sums[key] = runs + 1, earlier + time
        if place.function:
            launching[module, place.function] = functions[module, place.function]
    span = max((k.end_ns for k in kernels), default=0) - min(
        (k.start_ns for k in kernels), default=0
    )
    return KernelForward(
        inclusive_ns=inclusive,
        self_ns=own,
        calls=calls,
        span_ns=span,
        idle_ns=span - int(inclusive[ROOT]),
        kernels=sums,
        functions={key: launching[key] for key in functions if key in launching},
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


def _places(
    host: Sequence[HostEvent], modules: int
) -> tuple[dict[int, Place], NDArray[np.int64], dict[tuple[int, str], int]]:
    """Where each operator stands, by its number; calls of modules, and of functions in them."""
    places: dict[int, Place] = {}
    calls = np.zeros(modules, dtype=np.int64)
    functions: dict[tuple[int, str], int] = defaultdict(int)
    for together in _by_thread(host):
        # (end, place) of what is running, the innermost last
        running: list[tuple[int, Place]] = []
        for event in together:
            while running and running[-1][0] <= event.start_ns:
                running.pop()
            around = running[-1][1] if running else NOWHERE
            place = _within(event, around)
            if event.name.startswith(RANGE):
                calls[place.modules[-1]] += 1
            elif not around.function:
                functions[place.modules[-1], place.function] += 1
            places[event.number] = place
            running.append((event.end_ns, place))
    return places, calls, dict(functions)


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
    """An operator as its author would write it.

    Example:
        >>> short_name("aten::add_"), short_name("torchvision::nms")
        ('add_', 'nms')
    """
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
            if not event.name().startswith(RANGE):  # a range, repeated on the device's axis
                kernels.append(
                    Kernel(
                        event.name(),
                        event.linked_correlation_id(),
                        start,
                        start + event.duration_ns(),
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
                )
            )
    return host, kernels


# The driver's calls are numbered apart from the operators: the numbers overlap.
_DRIVERS = ("cuda", "hip", "cuLaunch", "cuMem", "ze", "mtia")


def _is_of_driver(event: Any) -> bool:  # noqa: ANN401 - torch's private class
    """Whether it is a call of the device's driver; PyTorch tells the kind from 2.10 on."""
    kind = getattr(event, "activity_type", None)
    if kind is not None:
        return str(kind()) not in ("cpu_op", "user_annotation", "python_function")
    return bool(event.name().startswith(_DRIVERS))
