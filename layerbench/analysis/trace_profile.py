"""A record of a trace: times by place and step, and how much of the trace has a name. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import fsum
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from layerbench._version import __version__
from layerbench.analysis.statistics import Resampler, summarize_rows
from layerbench.analysis.trace_nesting import Intervals, Key, Launches, Nesting, Steps, nested
from layerbench.analysis.trace_places import ROOT, Place, Places
from layerbench.errors import RecordError
from layerbench.records.timing import Summary
from layerbench.records.trace_events import FRAME, KERNEL, NONE, OPERATOR, RANGE, TraceEvents
from layerbench.records.trace_profile import (
    Coverage,
    TraceKernel,
    TraceOperator,
    TracePhase,
    TracePhaseName,
    TraceProfile,
    TraceRow,
)

NANOSECOND = 1e-9
MOST_LISTED = 1_000
"""Operators, and kernels by row, the longest."""

VARIED = "calls varied between steps"

Rows = NDArray[np.float64]


def profiled(events: TraceEvents, file: str) -> TraceProfile:
    """The record of a trace.

    Args:
        events: of the trace.
        file: its name.

    Raises:
        RecordError: nothing in it ran within its steps.
    """
    nesting = nested(events)
    steps = nesting.steps
    if not any(end > start for start, end in zip(steps.start_ns, steps.end_ns, strict=True)):
        raise RecordError(f"{file} has no stretch of time in it: record whole steps")
    ran = _Kernels(events, nesting)
    summaries = _Summaries(steps.number)
    wall = np.array(steps.end_ns) - np.array(steps.start_ns)
    (step,) = summaries.of(wall[None])
    return TraceProfile(
        layerbench=__version__,
        file=file,
        events=events.total,
        steps=steps.number if steps.marked else 0,
        step=step,
        rows=tuple(_rows(nesting, ran, summaries, wall)),
        phases=tuple(_phases(nesting, summaries)),
        host_coverage=_of_host(nesting),
        device_coverage=ran.coverage(),
        busy=summaries.of(ran.busy(steps)[None])[0] if ran.there else None,
        operators=tuple(_operators(nesting)),
        kernels=tuple(ran.listed()),
        devices=tuple(_devices(events)),
        lacks=tuple(_lacks(events, nesting)),
        notes=tuple(_notes(events, nesting, ran)),
    )


class _Summaries:
    """Summaries of as many samples as there are steps."""

    def __init__(self, steps: int) -> None:
        self._resampler = Resampler([steps])
        self.steps = steps

    def of(self, rows_ns: NDArray[np.int64] | Rows) -> list[Summary]:
        """Of times in nanoseconds, shape (rows, steps)."""
        return summarize_rows(rows_ns.astype(np.float64) * NANOSECOND, self._resampler)

    def by_place(self, times: Mapping[Key, float], places: Iterable[int]) -> dict[int, Summary]:
        """Of each place that has any."""
        there = {place for place, _ in times}
        wanted = {place: row for row, place in enumerate(p for p in places if p in there)}
        rows = np.zeros((len(wanted), self.steps))
        for (place, step), time in times.items():
            rows[wanted[place], step] = time
        return dict(zip(wanted, self.of(rows), strict=True))


def _inclusive(places: Places, own: Mapping[Key, float]) -> dict[Key, float]:
    """What each place has with those in it, by step."""
    by_step: dict[int, dict[int, float]] = {}
    for (place, step), time in own.items():
        by_step.setdefault(step, {})[place] = time
    return {
        (place, step): time
        for step, times in by_step.items()
        for place, time in places.summed(times).items()
    }


def _rows(
    nesting: Nesting, ran: _Kernels, summaries: _Summaries, wall: NDArray[np.int64]
) -> Iterable[TraceRow]:
    places, number = nesting.places, summaries.steps
    kept = _kept(nesting, ran)
    time: dict[Key, float] = {**nesting.time}
    own: dict[Key, float] = {**nesting.time_self}
    for step, whole in enumerate(wall.tolist()):
        time[ROOT, step] = whole
        own[ROOT, step] = max(0, whole - nesting.top[step])
    columns: dict[str, Mapping[Key, float]] = {
        "time": time,
        "time_self": own,
        "backward": _inclusive(places, nesting.backward_self),
        "backward_self": nesting.backward_self,
        "kernel_time": _inclusive(places, ran.own),
        "kernel_time_self": ran.own,
    }
    made = {name: summaries.by_place(times, kept) for name, times in columns.items()}
    kernels = places.summed(ran.number_of)
    calls = _calls(nesting, number)
    for at in kept:
        place = places.every[at]
        count, varied = calls.get(at, (0, False)) if at != ROOT else (1, False)
        yield TraceRow(
            path=place.path,
            name=place.named.name,
            type=place.named.type if at != ROOT or nesting.steps.marked else "trace",
            kind=place.named.kind,
            depth=place.depth,
            calls=count,
            block=_is_block(place, places),
            **{name: summary.get(at) for name, summary in made.items()},
            kernels=int(kernels.get(at, 0)) if ran.there else None,
            note=VARIED if varied else "",
        )


def _is_block(place: Place, places: Places) -> bool:
    """Whether it stands in the first view: what the outermost ones hold."""
    return 0 < place.depth <= 2 and places.every[place.above].depth <= 1


def _kept(nesting: Nesting, ran: _Kernels) -> list[int]:
    """The places with rows, in tree order: those that were reached within a step."""
    places = nesting.places
    reached = {place for times in (nesting.time, nesting.backward_self) for place, _ in times}
    reached |= {place for place, _ in ran.own}
    with_holders: set[int] = {ROOT}
    for number in reached:
        at = number
        while at not in with_holders:
            with_holders.add(at)
            at = places.every[at].above
    return [number for number in places.in_tree_order() if number in with_holders]


def _calls(nesting: Nesting, steps: int) -> dict[int, tuple[int, bool]]:
    """Of each place the median of its calls in a step, and whether they varied."""
    by_place: dict[int, list[int]] = {}
    for (place, _), number in nesting.calls.items():
        by_place.setdefault(place, []).append(number)
    found = {}
    for place, calls in by_place.items():
        every = [*calls, *[0] * (steps - len(calls))]
        found[place] = (max(1, int(np.median(every))), min(every) != max(every))
    return found


def _phases(nesting: Nesting, summaries: _Summaries) -> Iterable[TracePhase]:
    for name in get_args(TracePhaseName):
        times = [nesting.phases.get((name, step), 0) for step in range(summaries.steps)]
        if any(times):
            yield TracePhase(name=name, time=summaries.of(np.array([times]))[0])


def _operators(nesting: Nesting) -> list[TraceOperator]:
    steps = nesting.steps.number
    counted = sorted(nesting.operators.items(), key=lambda item: -item[1][1])
    return [
        TraceOperator(name=name, calls=calls, self_s=own * NANOSECOND / steps)
        for name, (calls, own) in counted[:MOST_LISTED]
        if calls
    ]


# --- coverage ----------------------------------------------------------------------------


def _of_host(nesting: Nesting) -> Coverage:
    """Of the steps: each moment counts once, for the best name that any thread has for it."""
    steps = nesting.steps
    lengths, every = [], np.zeros((0, 2), np.int64)
    for stretches in (nesting.modules, nesting.ranges, nesting.others):
        intervals = np.array(stretches, np.int64).reshape(-1, 2)
        every = united(np.concatenate([every, intervals]))
        lengths.append(within(every, steps))
    whole = sum(steps.end_ns) - sum(steps.start_ns)
    modules, named, all_ = (length * NANOSECOND for length in lengths)
    return Coverage(
        whole=whole * NANOSECOND, modules=modules, ranges=named - modules, operators=all_ - named
    )


def united(intervals: Intervals) -> Intervals:
    """The same moments in stretches apart from each other, in order."""
    if not len(intervals):
        return intervals
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    until = np.maximum.accumulate(ordered[:, 1])
    first = np.concatenate([[True], ordered[1:, 0] > until[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([ordered[first, 0], until[last]], axis=1)


def within(intervals: Intervals, steps: Steps) -> int:
    """Nanoseconds of separate stretches, in order, that lie in steps."""
    return int(_by_step(intervals, steps).sum())


def _by_step(intervals: Intervals, steps: Steps) -> NDArray[np.int64]:
    """The same by step."""
    if not len(intervals):
        return np.zeros(steps.number, np.int64)
    lengths = np.concatenate([[0], np.cumsum(intervals[:, 1] - intervals[:, 0])])

    def before(times: NDArray[np.int64]) -> NDArray[np.int64]:
        """What of the stretches lies before a moment."""
        at = np.searchsorted(intervals[:, 0], times, side="right")
        last = np.maximum(at - 1, 0)
        beyond = np.maximum(0, intervals[last, 1] - times)
        return np.where(at > 0, lengths[at] - beyond, 0)

    return before(np.array(steps.end_ns)) - before(np.array(steps.start_ns))


# --- what the accelerator ran ------------------------------------------------------------


class _Kernels:
    """Kernels and copies by place and step.

    Attributes:
        there: whether there are any.
        own: nanoseconds by place and step; ``number_of``: how many by place.
        unlaunched: how many have no launch in the trace.
    """

    def __init__(self, events: TraceEvents, nesting: Nesting) -> None:
        kinds = np.array([kind for kind, _ in events.labels])
        at = np.flatnonzero(kinds[events.label] == KERNEL)
        steps = nesting.steps
        start = events.start_ns[at]
        found, place, step, backward = _launched(events, nesting, at)
        own_step = np.array([steps.of(time) for time in start[~found].tolist()], np.int64)
        step[~found] = own_step
        inside = step != NONE
        self._places, self._steps = nesting.places, steps.number
        self._labels = [name for _, name in events.labels]
        self._label = events.label[at][inside]
        self._duration = events.duration_ns[at][inside]
        self._place, self._step = place[inside], step[inside]
        self._backward, self._found = backward[inside], found[inside]
        self._intervals = np.stack([start, start + events.duration_ns[at]], axis=1)
        self.there = bool(len(self._duration))
        self.unlaunched = int(np.count_nonzero(~self._found))
        keys = np.stack([self._place, self._step], axis=1)
        self.own: dict[Key, float] = {
            (int(key[0]), int(key[1])): time for key, time, _ in _summed(keys, self._duration)
        }
        self.number_of: dict[int, float] = {
            int(key[0]): number for key, _, number in _summed(keys[:, :1], self._duration)
        }

    def coverage(self) -> Coverage | None:
        """How much of the kernels' time is known to be whose."""
        if not self.there:
            return None
        in_module = np.array([place.in_module for place in self._places.every])[self._place]
        in_range = ~in_module & (self._place != ROOT)
        others = ~in_module & ~in_range & self._found
        seconds = self._duration * NANOSECOND
        return Coverage(
            whole=fsum(seconds),
            modules=fsum(seconds[in_module]),
            ranges=fsum(seconds[in_range]),
            operators=fsum(seconds[others]),
        )

    def busy(self, steps: Steps) -> NDArray[np.int64]:
        """Nanoseconds of each step in which one at least ran."""
        return _by_step(united(self._intervals), steps)

    def listed(self) -> list[TraceKernel]:
        """By name and row, the longest first."""
        keys = np.stack([self._label, self._place, self._backward], axis=1)
        groups = sorted(_summed(keys, self._duration), key=lambda group: -group[1])
        return [
            TraceKernel(
                name=self._labels[key[0]],
                module=self._places.every[int(key[1])].path,
                backward=bool(key[2]),
                calls=number,
                seconds=time * NANOSECOND / self._steps,
            )
            for key, time, number in groups[:MOST_LISTED]
        ]


def _summed(
    keys: NDArray[np.int64], times: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], float, int]]:
    """Of each different key the sum of the times, and how many there are."""
    if not len(keys):
        return []
    different, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    sums, numbers = np.bincount(group, weights=times), np.bincount(group)
    return list(zip(different, sums.tolist(), numbers.tolist(), strict=True))


_Launched = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _launched(events: TraceEvents, nesting: Nesting, at: NDArray[np.int64]) -> _Launched:
    """Of kernels, whether their launch is there, and its place, step and phase.

    The call of the runtime has the same correlation. Where that was not recorded, the operator has
    the same external number.
    """
    found = np.zeros(len(at), bool)
    place, step, backward = np.full(len(at), ROOT), np.full(len(at), NONE), np.zeros(len(at), int)
    ways: tuple[tuple[Launches, NDArray[np.int64]], ...] = (
        (nesting.by_correlation, events.correlation[at]),
        (nesting.by_external, events.external[at]),
    )
    for launches, wanted in ways:
        if not len(launches.number):
            continue
        numbers = np.array(launches.number)
        order = np.argsort(numbers, kind="stable")
        position = np.minimum(np.searchsorted(numbers[order], wanted), len(order) - 1)
        match = order[position]
        fresh = ~found & (wanted >= 0) & (numbers[match] == wanted)
        place[fresh] = np.array(launches.place)[match[fresh]]
        step[fresh] = np.array(launches.step)[match[fresh]]
        backward[fresh] = np.array(launches.backward)[match[fresh]]
        found |= fresh
    return found, place, step, backward


# --- what there is to know of the trace --------------------------------------------------


def _devices(events: TraceEvents) -> Iterable[str]:
    listed = events.header.get("deviceProperties")
    for device in listed if isinstance(listed, list) else ():
        name = device.get("name") if isinstance(device, dict) else None
        if isinstance(name, str):
            yield name


def _lacks(events: TraceEvents, nesting: Nesting) -> Iterable[str]:
    """What the trace does not have, and how to record it."""
    kinds = {kind for kind, _ in events.labels}
    has_frames = events.frames > 0 or FRAME in kinds
    has_modules = any(place.in_module for place in nesting.places.every)
    ranges = sum(not place.in_module for place in nesting.places.every[1:])
    if not has_modules and not has_frames:
        there = "only ranges of record_function have names" if ranges else "nothing has a name"
        yield (
            f"recorded without with_stack: {there}; record with torch.profiler.profile("
            "with_stack=True), as with_modules alone names modules of TorchScript only"
        )
    elif not has_modules:
        yield (
            "no call of a module is in it, though Python's calls are: the model was compiled or "
            "scripted, or called before; record a step of the model as it is"
        )
    if not nesting.steps.marked:
        yield (
            "no profiler steps: the whole trace is one sample, without intervals; record with a "
            "schedule, such as torch.profiler.schedule(wait=1, warmup=2, active=10), and call "
            "step() of the profiler after each step of the training: without one it marks none"
        )
    elif nesting.steps.number == 1:
        yield "one profiler step: one sample, without intervals; record several, active=10"
    if KERNEL in kinds and OPERATOR not in kinds and RANGE not in kinds:
        yield (
            "kernels without operators: nothing says what launched them; record with "
            "ProfilerActivity.CPU, too"
        )
    if nesting.nodes and not nesting.forward_known:
        yield (
            "the backward's operators have no forward in it: they belong to no module; record "
            "whole steps"
        )


def _notes(events: TraceEvents, nesting: Nesting, ran: _Kernels) -> Iterable[str]:
    """What weakens the figures."""
    if events.broken:
        yield f"{events.broken} events without a name or with times that cannot be were left out"
    if nesting.overlapping:
        yield (
            f"{nesting.overlapping} events end after the one that they began in, and were cut "
            "there: ranges of one thread that do not nest"
        )
    if nesting.places.merged:
        yield (
            f"{nesting.places.merged} calls lie too deep or at too many places for rows of their "
            "own: they count for what holds them"
        )
    if nesting.steps.beyond:
        yield (
            f"the first {nesting.steps.number} steps count, and {nesting.steps.beyond} more do not"
        )
    if nesting.held:
        names = ", ".join(list(nesting.held)[:3])
        yield f"ranges that hold whole steps name nothing here: {names}"
    if nesting.elsewhere:
        yield (
            f"modules or ranges ran in other threads than the steps ({len(nesting.elsewhere)}): "
            "their times may exceed a step's"
        )
    if ran.unlaunched:
        yield f"kernels without a launch in the trace, which belong to no row: {ran.unlaunched}"
