"""What is shown over time: a comparison's before and now, and memory as a run goes on."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench import units
from layerbench.records.bundle import Bundle
from layerbench.records.memory import OUTSIDE_ROW, MemoryReport
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.rows import PageRow
from layerbench.reporters.html.schema import Changed, Timeline


def changed(bundle: Bundle, rows: Sequence[PageRow]) -> Changed | None:
    """Two measurements row by row; ``None`` without a comparison."""
    comparison = bundle.comparison
    if comparison is None:
        return None
    by_path = {row.path: row for row in comparison.rows}
    by_path.setdefault("", comparison.whole)
    added, missing = set(comparison.added), set(comparison.missing)
    compared = [by_path.get(row.path) for row in rows]
    return Changed(
        baseline=comparison.baseline.name,
        contender=comparison.contender.name,
        threshold=comparison.threshold,
        before=tuple(row and rounded(row.baseline_s) for row in compared),
        after=tuple(row and rounded(row.contender_s) for row in compared),
        ratio=tuple(row and rounded(row.ratio) for row in compared),
        low=tuple(row and rounded(row.ratio_low) for row in compared),
        high=tuple(row and rounded(row.ratio_high) for row in compared),
        verdict=tuple(
            row.verdict
            if row
            else "missing"
            if path in missing
            else "added"
            if path in added
            else ""
            for path, row in zip((row.path for row in rows), compared, strict=True)
        ),
        notes={index: row.note for index, row in enumerate(compared) if row and row.note},
        differences=tuple(
            (f"{differs.where}: {differs.what}", differs.baseline, differs.contender)
            for differs in comparison.differences
        ),
    )


def timeline(bundle: Bundle, rows: Sequence[PageRow]) -> Timeline | None:
    """Memory over time, in stretches; ``None`` if it was not traced."""
    memory = bundle.memory
    if memory is None or not memory.timeline:
        return None
    place = {row.path: index for index, row in enumerate(rows)}
    paths = [row.path for row in memory.rows]
    if isinstance(memory, MemoryReport):
        how = "Bytes of tensors alive in a real run."
        most, owner = memory.peak.bytes, memory.peak.owner
    else:
        how = f"Bytes of blocks alive, predicted for {memory.on}."
        most, owner = memory.peak_bytes, memory.peak_owner
    where = "outside the model" if owner is None else owner or "the model itself"
    return Timeline(
        how=how,
        owner=tuple(
            None if point.owner is None else place.get(paths[point.owner])
            for point in memory.timeline
        ),
        phase=tuple(point.phase for point in memory.timeline),
        most=tuple(point.live_max for point in memory.timeline),
        end=tuple(point.live_end for point in memory.timeline),
        changes=tuple(
            tuple(
                (row if row == OUTSIDE_ROW else place.get(paths[row], OUTSIDE_ROW), change)
                for row, change in point.changes
            )
            for point in memory.timeline
        ),
        peak=f"{units.bytes_(most)} at the peak, in {where}",
    )
