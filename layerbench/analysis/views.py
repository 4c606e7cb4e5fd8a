"""Smaller views of a record, themselves records. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, cast

from layerbench.records.memory import (
    OUTSIDE_ROW,
    PHASES,
    MemoryEstimate,
    MemoryReport,
    MemoryRow,
    Peak,
    Phase,
    TimelinePoint,
)
from layerbench.records.peers import TorchinfoReport, TorchinfoRow
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingMemory, TrainingProfile
from layerbench.records.tree import ancestors, positions

AnyRecord = TypeVar("AnyRecord", bound=Structure | MemoryReport | MemoryEstimate)

_OWN = {
    StructureRow: ("self_flops",),
    MemoryRow: ("self_allocated", "self_kept", "self_at_peak"),
}


def down_to(record: AnyRecord, depth: int | None) -> AnyRecord:
    """The record without the rows below a depth; what those held themselves goes to the row above.

    Sums stay what they are: over the rows' own figures, and over the timeline.
    """
    if depth is None:
        return record
    rows: Sequence[StructureRow | MemoryRow] = record.rows
    home = _homes(rows, depth)
    update: dict[str, object] = {
        "rows": _fold(rows, home),
        "notes": (*record.notes, *_blocks_left_out(rows, depth)),
    }
    if isinstance(record, Structure):
        if record.torchinfo is not None:
            update["torchinfo"] = _torchinfo_down_to(record.torchinfo, depth)
    else:
        update["timeline"] = tuple(_moved(point, home) for point in record.timeline)
    return cast(AnyRecord, record.model_copy(update=update))


def _torchinfo_down_to(report: TorchinfoReport, depth: int) -> TorchinfoReport:
    """As torchinfo prints it to a depth: the deepest modules have the sums of their parts."""
    rows: list[TorchinfoRow] = []
    for row in report.rows:
        if row.depth <= depth:
            rows.append(row)
        elif rows:
            above = rows[-1]
            more = 0 if row.recursive else row.num_params or 0
            sums = {
                "num_params": (above.num_params or 0) + more or None,
                "mult_adds": (above.mult_adds or 0) + (row.mult_adds or 0) or None,
            }
            rows[-1] = above.model_copy(update=sums)
    return report.model_copy(update={"rows": tuple(rows)})


def _blocks_left_out(rows: Sequence[StructureRow | MemoryRow], depth: int) -> Iterator[str]:
    blocks = [row.depth for row in rows if row.block]
    below = [deep for deep in blocks if deep > depth]
    if below:
        yield (
            f"{len(below)} of the {len(blocks)} blocks lie deeper than {depth} and have no row; "
            f"a depth of {max(below)} shows all"
        )


class Held(Protocol):
    """What a training step held: a report on memory, or what was seen of a loop's own step."""

    @property
    def rows(self) -> tuple[MemoryRow, ...]:
        """Of the modules, in tree order."""

    @property
    def timeline(self) -> tuple[TimelinePoint, ...]:
        """Of the step."""

    @property
    def peak(self) -> Peak:
        """The moment with the most bytes alive."""

    @property
    def resident_bytes(self) -> int:
        """Parameters, buffers and input."""


def with_training_memory(record: TrainingProfile, report: Held) -> TrainingProfile:
    """The training profile with what a report on the same step says of memory.

    Args:
        record: rows by module.
        report: of a training step of the same model.
    """
    kept = {row.path: row.kept for row in report.rows}
    live = live_peaks(report)
    rows = tuple(
        row.model_copy(
            update={
                "kept": kept.get(row.path),
                "live": {p: live[row.path, p] for p in PHASES if (row.path, p) in live},
            }
        )
        for row in record.rows
    )
    memory = TrainingMemory(
        resident=report.resident_bytes,
        peak=report.peak,
        live={phase: live[None, phase] for phase in PHASES if (None, phase) in live},
    )
    return record.model_copy(update={"rows": rows, "memory": memory})


def live_peaks(report: Held) -> dict[tuple[str | None, Phase], int]:
    """The most bytes alive in a phase while a module, or one below it, ran.

    Under the path ``None``: in the phase, whatever ran.
    """
    peaks: dict[tuple[str | None, Phase], int] = {}
    for point in report.timeline:
        path = None if point.owner is None else report.rows[point.owner].path
        around = [report.rows[row].path for row in point.within] or ancestors(path or "")
        places = [None] if path is None else [None, path, *around]
        for place in places:
            key = (place, point.phase)
            peaks[key] = max(peaks.get(key, 0), point.live_max)
    return peaks


def finest(record: Profile) -> Profile:
    """The profile with every layer in its block view: each row that ran and holds no other.

    They do not contain each other, as blocks do not; what is between them is what composite
    modules do themselves and no function has.
    """
    if not record.layers:
        return record
    following = [row.depth for row in record.layers[1:]] + [0]
    shown = [
        row.inclusive is not None and after <= row.depth
        for row, after in zip(record.layers, following, strict=True)
    ]
    numbers = positions((row.type for row in record.layers), shown)
    rows = (
        row.model_copy(update={"block": block, "position": number})
        for row, block, number in zip(record.layers, shown, numbers, strict=True)
    )
    return record.model_copy(update={"layers": tuple(rows)})


def _homes(rows: Sequence[StructureRow | MemoryRow], depth: int) -> list[int]:
    """For each row the index, among those that stay, of itself or of the row that takes it in."""
    homes: list[int] = []
    kept = -1
    for row in rows:
        if row.depth <= depth:
            kept += 1
        homes.append(kept)
    return homes


def _fold(
    rows: Sequence[StructureRow | MemoryRow], home: Sequence[int]
) -> tuple[StructureRow | MemoryRow, ...]:
    """The rows that stay. Rows are in tree order, so the first that goes home is the one itself."""
    sums: dict[int, dict[str, int | None]] = {}
    first: dict[int, StructureRow | MemoryRow] = {}
    for row, index in zip(rows, home, strict=True):
        first.setdefault(index, row)
        total = sums.setdefault(index, {})
        for name in _OWN[type(row)]:
            value = getattr(row, name)
            if value is not None:
                total[name] = (total.get(name) or 0) + value
    return tuple(row.model_copy(update=sums[index]) for index, row in first.items())


def _moved(point: TimelinePoint, home: Sequence[int]) -> TimelinePoint:
    sums: Counter[int] = Counter()
    for row, change in point.changes:
        sums[row if row == OUTSIDE_ROW else home[row]] += change
    changes = tuple((row, change) for row, change in sorted(sums.items()) if change)
    owner = None if point.owner is None else home[point.owner]
    within = tuple(dict.fromkeys(home[row] for row in point.within if home[row] != owner))
    return point.model_copy(update={"owner": owner, "changes": changes, "within": within})
