"""From a trace of storages to what each module holds, and to whom the peak belongs.

The same for a measured run and for a predicted one: what differs is how many bytes each
allocation counts, those asked for or those of the block that an allocator handed out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from layerbench.instruments.modules import CallFacts
from layerbench.instruments.storage_tracker import Allocation, Step, Trace
from layerbench.records.memory import (
    CATEGORIES,
    OUTSIDE_ROW,
    Category,
    MemoryRow,
    Peak,
    Phase,
    TimelinePoint,
)
from layerbench.records.samples import RowFacts
from layerbench.records.tree import Placed, ancestors, placed

ITERATION = "iteration"
FORWARD = "forward"
FORWARD_END = "forward end"
"""Moments of a trace's last iteration."""

RESIDENT: frozenset[Category] = frozenset({"parameters", "buffers", "input"})


@dataclass(frozen=True)
class Holding:
    """What a run held, ready for a record.

    Attributes:
        peak: the moment with the most bytes in the last iteration.
        rows: modules in tree order.
        timeline: of the last iteration.
        resident_bytes, outside_bytes: see `layerbench.records.memory.MemoryReport`.
    """

    peak: Peak
    rows: tuple[MemoryRow, ...]
    timeline: tuple[TimelinePoint, ...]
    resident_bytes: int
    outside_bytes: int


def events(trace: Trace) -> Iterator[tuple[Allocation, int, bool]]:
    """Every birth and death, in order: the allocation, its index, and whether it is a birth."""
    moments = [(a.born, index, True) for index, a in enumerate(trace.allocations)]
    moments += [
        (a.died, index, False) for index, a in enumerate(trace.allocations) if a.died is not None
    ]
    for _, index, birth in sorted(moments):
        yield trace.allocations[index], index, birth


def hold(
    trace: Trace,
    sizes: Sequence[int],
    modules: Sequence[RowFacts],
    calls: Mapping[str, CallFacts],
) -> Holding:
    """Work out rows, peak and timeline of the trace's last iteration.

    Args:
        trace: of the whole run.
        sizes: bytes of each of its allocations.
        modules: facts of the modules' rows.
        calls: of the modules that ran.
    """
    curve = _Curve(trace, sizes)
    at_peak = curve.alive_at(curve.peak_moment)
    resident = sum(sizes[i] for i in at_peak if trace.allocations[i].category in RESIDENT)
    own_at_peak = _by_place(trace, sizes, (i for i in at_peak if not _resident(trace, i)))
    rows = _Rows(trace, sizes, curve, own_at_peak).of(modules, calls)
    index = {row.path: number for number, row in enumerate(rows)}
    return Holding(
        peak=curve.peak(at_peak),
        rows=rows,
        timeline=curve.timeline(index),
        resident_bytes=resident,
        outside_bytes=own_at_peak.get(None, 0),
    )


def peak_bytes(trace: Trace, sizes: Sequence[int]) -> int:
    """The most bytes alive in the trace's last iteration; the peak of `hold`, without the rest."""
    return _Curve(trace, sizes).peak_bytes


def _resident(trace: Trace, index: int) -> bool:
    return trace.allocations[index].category in RESIDENT


def _by_place(trace: Trace, sizes: Sequence[int], which: Iterator[int]) -> dict[int | None, int]:
    sums: Counter[int | None] = Counter()
    for index in which:
        sums[_place(trace, trace.allocations[index])] += sizes[index]
    return dict(sums)


def _place(trace: Trace, what: Allocation | Step) -> int | None:
    """The call that it belongs to; if unknown, the owner's first call."""
    if what.owner is None:
        return None
    return trace.calls.home(what.owner) if what.place is None else what.place


@dataclass
class _Stretch:
    """Consecutive operators of one call in one phase."""

    owner: str | None
    place: int | None
    phase: Phase
    begin: int
    live_max: int = 0
    live_end: int = 0
    changes: Counter[str | None] = field(default_factory=Counter)


class _Curve:
    """The live bytes over the trace's last iteration."""

    def __init__(self, trace: Trace, sizes: Sequence[int]) -> None:
        self._trace = trace
        self._sizes = sizes
        self.begin = trace.marks.get(ITERATION, 0)
        self.stretches = self._make_stretches()
        self.peak_bytes = -1
        self.peak_moment = self.begin
        self._run()

    def _make_stretches(self) -> list[_Stretch]:
        stretches = [_Stretch(None, None, "load", 0)]
        for step in self._trace.steps:
            last, place = stretches[-1], _place(self._trace, step)
            if step.begin >= self.begin and (place, step.phase) != (last.place, last.phase):
                stretches.append(_Stretch(step.owner, place, step.phase, step.begin))
        return stretches

    def _run(self) -> None:
        live, at = 0, 0
        for moment, change, owner in self._changes():
            while at + 1 < len(self.stretches) and self.stretches[at + 1].begin <= moment:
                at += 1
                self.stretches[at].live_max = self.stretches[at].live_end = live
            live += change
            stretch = self.stretches[at]
            stretch.changes[owner] += change
            # What earlier iterations reached is not this one's.
            stretch.live_max = max(stretch.live_max, live) if moment >= self.begin else live
            stretch.live_end = live
            if moment >= self.begin and live > self.peak_bytes:
                self.peak_bytes, self.peak_moment = live, moment
        for stretch in self.stretches[at + 1 :]:
            stretch.live_max = stretch.live_end = live
        if self.peak_bytes < 0:
            self.peak_bytes = live

    def _changes(self) -> list[tuple[int, int, str | None]]:
        changes = []
        for allocation, size in zip(self._trace.allocations, self._sizes, strict=True):
            changes.append((allocation.born, size, allocation.owner))
            if allocation.died is not None:
                changes.append((allocation.died, -size, allocation.owner))
        return sorted(changes, key=lambda change: change[:2])

    def alive_at(self, moment: int) -> list[int]:
        """Indices of the allocations alive after the event at this moment."""
        return [
            index
            for index, allocation in enumerate(self._trace.allocations)
            if allocation.born <= moment and (allocation.died is None or allocation.died > moment)
        ]

    def peak(self, alive: Sequence[int]) -> Peak:
        step = self._step_at(self.peak_moment)
        categories: Counter[Category] = Counter()
        for index in alive:
            categories[self._trace.allocations[index].category] += self._sizes[index]
        return Peak(
            bytes=self.peak_bytes,
            owner=step.owner if step else None,
            phase=step.phase if step else "load",
            operator=step.operator if step else "",
            by_category={name: categories[name] for name in CATEGORIES if categories[name]},
        )

    def _step_at(self, moment: int) -> Step | None:
        steps = self._trace.steps
        at = bisect_right(steps, moment, key=lambda step: step.begin) - 1
        return steps[at] if at >= 0 and steps[at].begin >= self.begin else None

    def timeline(self, index: Mapping[str, int]) -> tuple[TimelinePoint, ...]:
        running = self._trace.calls.running()
        around = {
            place: _rows_around(running[place], index)
            for place in {stretch.place for stretch in self.stretches}
            if place is not None
        }
        return tuple(
            TimelinePoint(
                owner=None if stretch.owner is None else index.get(stretch.owner),
                phase=stretch.phase,
                live_max=stretch.live_max,
                live_end=stretch.live_end,
                changes=_by_row(stretch.changes, index),
                within=() if stretch.place is None else around[stretch.place],
            )
            for stretch in self.stretches
        )

    def live_peaks(self) -> dict[str, int]:
        """For each module the most bytes alive while one of its calls ran."""
        peaks: dict[int, int] = {}
        for stretch in self.stretches:
            if stretch.place is not None:
                peaks[stretch.place] = max(peaks.get(stretch.place, 0), stretch.live_max)
        return self._trace.calls.maxima(peaks)


def _rows_around(running: Sequence[str], index: Mapping[str, int]) -> tuple[int, ...]:
    """The rows of the modules running around the first, where these are not those above it."""
    owner, *around = running
    if set(around) == set(ancestors(owner)):
        return ()
    return tuple(index[path] for path in around if path in index)


def _by_row(
    changes: Mapping[str | None, int], index: Mapping[str, int]
) -> tuple[tuple[int, int], ...]:
    sums: Counter[int] = Counter()
    for owner, change in changes.items():
        sums[OUTSIDE_ROW if owner is None else index.get(owner, OUTSIDE_ROW)] += change
    return tuple((row, change) for row, change in sorted(sums.items()) if change)


class _Rows:
    """Sums of allocations by module, over the last iteration."""

    def __init__(
        self,
        trace: Trace,
        sizes: Sequence[int],
        curve: _Curve,
        at_peak: Mapping[int | None, int],
    ) -> None:
        began = trace.marks.get(FORWARD, curve.begin)
        ended = trace.marks.get(FORWARD_END, trace.marks.get("end", 0))
        own: Counter[int] = Counter()
        kept: Counter[int] = Counter()
        for allocation, size in zip(trace.allocations, sizes, strict=True):
            place = _place(trace, allocation)
            if place is None or allocation.born < curve.begin:
                continue
            own[place] += size
            survived = allocation.died is None or allocation.died > ended
            # A library's workspace is kept too, but it is no activation.
            if began <= allocation.born <= ended and survived and allocation.low is None:
                kept[place] += size
        self._calls = trace.calls
        self._own, self._all = self._of_itself(own), trace.calls.sums(own)
        self._kept, self._all_kept = self._of_itself(kept), trace.calls.sums(kept)
        self._live = curve.live_peaks()
        held = {place: size for place, size in at_peak.items() if place is not None}
        self._at_peak, self._all_at_peak = self._of_itself(held), trace.calls.sums(held)

    def _of_itself(self, by_place: Mapping[int, int]) -> Counter[str]:
        """By path what ran in the module and in none that it called."""
        sums: Counter[str] = Counter()
        for place, size in by_place.items():
            sums[self._calls.paths[place]] += size
        return sums

    def of(
        self, modules: Sequence[RowFacts], calls: Mapping[str, CallFacts]
    ) -> tuple[MemoryRow, ...]:
        return tuple(
            self._row(modules[place.row], place, modules[place.row].path in calls)
            for place in placed(modules)
        )

    def _row(self, row: RowFacts, place: Placed, ran: bool) -> MemoryRow:
        path = row.path
        has_figures = ran or path in self._all

        def value(sums: Mapping[str, int]) -> int | None:
            return sums.get(path, 0) if has_figures else None

        return MemoryRow(
            path=path,
            type=row.type,
            depth=row.depth,
            calls=row.calls,
            block=row.block,
            position=place.position,
            turn=place.turn,
            output_shapes=row.output_shapes,
            parameters=row.parameters or 0,
            allocated=value(self._all),
            self_allocated=value(self._own),
            kept=value(self._all_kept),
            self_kept=value(self._kept),
            live_peak=self._live.get(path),
            at_peak=value(self._all_at_peak),
            self_at_peak=value(self._at_peak),
            note=row.note,
        )
