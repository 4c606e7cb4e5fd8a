"""Which rows a page has, and what each record of a bundle says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from layerbench import units
from layerbench.analysis.hotspots import Limit, hotspots
from layerbench.analysis.launching import StepLaunching
from layerbench.records.bounds import Shape
from layerbench.records.bundle import Bundle
from layerbench.records.comparison import ComparedRow
from layerbench.records.latency_estimate import LatencyRow
from layerbench.records.memory import MemoryRow
from layerbench.records.structure import StructureRow
from layerbench.records.timing import LayerRow
from layerbench.records.training_step import TrainingRow
from layerbench.records.tree import depth_of, parent, tree_order
from layerbench.reporters import formatting, freeing
from layerbench.reporters.documents import device
from layerbench.reporters.html.schema import Rows

_Basis = LayerRow | StructureRow | MemoryRow | TrainingRow | LatencyRow | ComparedRow


@dataclass(frozen=True)
class PageRow:
    """One row of the page, with what each record says of it."""

    path: str
    type: str
    depth: int
    kind: Literal["module", "function", "range", "missing"] = "module"
    calls: int = 1
    block: bool = False
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    note: str = ""
    time: LayerRow | None = None
    made_of: StructureRow | None = None
    bytes: MemoryRow | None = None
    step: TrainingRow | None = None
    predicted: LatencyRow | None = None


def figure(part: str, field: str) -> Callable[[PageRow], Any]:
    """Return a function that reads a field of a row's record; ``None`` if there is none."""
    return lambda row: getattr(getattr(row, part), field, None)


def counted(field: str) -> Callable[[PageRow], Any]:
    """Return a function that reads what a structure says of a row, or else a profile."""

    def read(row: PageRow) -> Any:  # noqa: ANN401 - fields of many kinds
        parts = (row.made_of, row.time, row.predicted)
        found = (getattr(part, field, None) for part in parts)
        return next((value for value in found if value is not None), None)

    return read


def rows_of(bundle: Bundle) -> list[PageRow]:
    """The rows of the record that has most; what others say of them stands beside it."""
    profile, memory, training = bundle.profile, bundle.memory, bundle.training
    times = {row.path: row for row in profile.layers} if profile else {}
    made_of = {row.path: row for row in bundle.structure.rows} if bundle.structure else {}
    bytes_of = {row.path: row for row in memory.rows} if memory else {}
    steps = {row.path: row for row in training.rows} if training else {}
    predicted = {row.path: row for row in bundle.latency.rows} if bundle.latency else {}
    compared = {row.path: row for row in bundle.comparison.rows} if bundle.comparison else {}
    freed = freeing.remarks(profile) if profile else {}
    lists: tuple[Mapping[str, _Basis], ...] = (
        *(times, made_of, bytes_of, steps, predicted),
        compared,
    )
    rows = [
        replace(
            _row(row),
            time=times.get(path),
            made_of=made_of.get(path),
            bytes=bytes_of.get(path),
            step=steps.get(path),
            predicted=predicted.get(path),
        )
        for path, row in max(lists, key=len).items()
    ]
    if not rows or rows[0].path:
        rows.insert(0, PageRow(path="", type=bundle.model_type, depth=0))
    noted = [
        replace(
            row, note=formatting.remarks(_below(row, bundle), freed.get(row.path, ""), row.note)
        )
        for row in map(_with_shapes, rows)
    ]
    return _with_others(noted, bundle)


def _below(row: PageRow, bundle: Bundle) -> str:
    """Which of its times are shorter than an accelerator's clock can tell from nothing."""
    profile, training = bundle.profile, bundle.training
    rounds = profile.device_rounds if profile else None
    below = row.time is not None and device.is_below_resolution(rounds, row.time.inclusive)
    step = device.below_in_step(training.device_rounds, row.step) if training and row.step else ""
    return formatting.remarks(device.BELOW_RESOLUTION if below else "", step)


def _row(row: _Basis) -> PageRow:
    return PageRow(
        path=row.path,
        type=row.type,
        depth=row.depth,
        kind=getattr(row, "kind", "module"),
        calls=getattr(row, "calls", 1),
        block=row.block,
        inputs=getattr(row, "input_shapes", ()),
        outputs=getattr(row, "output_shapes", ()),
        note=getattr(row, "note", ""),
    )


def _with_shapes(row: PageRow) -> PageRow:
    """A record that does not say shapes leaves it to one that does."""
    if row.made_of is None or (row.inputs and row.outputs):
        return row
    return replace(
        row,
        inputs=row.inputs or row.made_of.input_shapes,
        outputs=row.outputs or row.made_of.output_shapes,
        note=row.note or row.made_of.note,
    )


def _with_others(rows: Sequence[PageRow], bundle: Bundle) -> list[PageRow]:
    """The rows, and those that only the comparison has.

    Those are rows of the baseline only, and where there is no profile also rows of the contender
    only, and containers that were timed on neither side. Each stands at the end of what is below
    its parent.
    """
    if bundle.comparison is None:
        return list(rows)
    there = {row.path for row in rows}
    before = {row.path: row for row in bundle.baseline.layers} if bundle.baseline else {}
    below: dict[str, list[PageRow]] = {}

    def add(path: str, kind: Literal["module", "missing"]) -> None:
        while path not in there:
            there.add(path)
            type_ = before[path].type if path in before else ""
            row = PageRow(path=path, type=type_, depth=depth_of(path), kind=kind, calls=0)
            path, kind = parent(path), "module"
            below.setdefault(path, []).append(row)

    for row in rows:
        add(parent(row.path), "module")
    for path in bundle.comparison.added:
        add(path, "module")
    for path in bundle.comparison.missing:
        add(path, "missing")
    others = [row for siblings in below.values() for row in siblings]
    made = [*rows, *others]
    # Siblings stand in the order of their first rows.
    orders = [*range(len(rows)), *[None] * len(others)]
    return [made[index] for index in tree_order([row.path for row in made], orders)]


def bounds(bundle: Bundle) -> Mapping[str, Limit]:
    """What each layer meets first, by path, where a record has times of the device alone."""
    profile, training = bundle.profile, bundle.training
    if profile is not None and profile.device_rounds is not None:
        return {spot.row.path: spot.bound for spot in hotspots(profile) if spot.bound is not None}
    if training is not None:
        launching = StepLaunching.of(training)
        return {row.path: "launch" for row in training.rows if launching.bounds_own(row)}
    if bundle.latency is not None:
        return {row.path: row.limit for row in bundle.latency.rows if row.limit is not None}
    return {}


def columns(rows: Sequence[PageRow], bound: Mapping[str, Limit]) -> Rows:
    """The rows as columns, without the measured figures.

    Args:
        rows: of the page.
        bound: as `bounds` makes it.
    """
    return Rows(
        path=tuple(row.path for row in rows),
        type=tuple(row.type for row in rows),
        kind=tuple(row.kind for row in rows),
        depth=tuple(row.depth for row in rows),
        calls=tuple(row.calls for row in rows),
        block=tuple(index for index, row in enumerate(rows) if row.block),
        inputs=tuple(formatting.shapes(row.inputs) for row in rows),
        outputs=tuple(formatting.shapes(row.outputs) for row in rows),
        note={index: row.note for index, row in enumerate(rows) if row.note},
        kernel={
            index: units.by_x(size)
            for index, size in enumerate(map(counted("kernel_size"), rows))
            if size
        },
        groups={
            index: number for index, number in enumerate(map(counted("groups"), rows)) if number
        },
        bound={index: bound[row.path] for index, row in enumerate(rows) if row.path in bound},
    )


def parents(rows: Sequence[PageRow]) -> list[int]:
    """Of each row the number of the one above; -1 for the first."""
    numbers: list[int] = []
    above: list[int] = []
    for index, row in enumerate(rows):
        while above and rows[above[-1]].depth >= row.depth:
            above.pop()
        numbers.append(above[-1] if above else -1)
        above.append(index)
    return numbers
