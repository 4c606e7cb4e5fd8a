"""The document of a sweep on several devices."""

from __future__ import annotations

from layerbench import units
from layerbench.records.device_sweeps import DeviceColumn, DeviceSweeps
from layerbench.records.sweep import SweepPoint
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared
from layerbench.reporters.documents import sweep as of_one

# A point, whatever it ran on.
_What = tuple[str, tuple[int, int], int]


def document(record: DeviceSweeps, view: View = USUAL) -> layout.Document:
    """The devices side by side, then where climbs ended and what is missing."""
    return layout.Document(
        title="Latency on several devices",
        head=[*shared.cautions(cautions(record)), *_fastest(record, view)],
        sections=[
            _side_by_side(record),
            layout.listed("Where the climbs ended", _ends(record)),
            layout.listed("Not measured", _missing(record)),
            layout.listed("Warnings", cautions(record)),
            _devices(record),
        ],
    )


def cautions(record: DeviceSweeps) -> list[str]:
    """What voids or weakens the times of any column, the gravest first."""
    return [
        *_incomplete(record),
        *(
            f"{column.name}: {caution}"
            for column in record.columns
            if column.sweep is not None
            for caution in of_one.cautions(column.sweep)
        ),
    ]


def rows(record: DeviceSweeps) -> cells.Rows:
    """A row a point and device."""
    made: list[cells.Cells] = []
    for column in record.columns:
        if column.sweep is not None:
            made += [{"column": column.name, **row} for row in of_one.rows(column.sweep)[1]]
    return {}, made


def _incomplete(record: DeviceSweeps) -> list[str]:
    missing = sum(len(column.missing) for column in record.columns)
    return [f"{formatting.plural(missing, 'point')} missing"] if missing else []


def _fastest(record: DeviceSweeps, view: View) -> list[layout.Part]:
    """Of each device the most images a second, the fastest first."""
    best = [
        (min(column.sweep.points, key=lambda point: point.per_image_s), column)
        for column in record.columns
        if column.sweep is not None and column.sweep.points
    ]
    if not best:
        return [layout.Text("nothing was measured")]
    best.sort(key=lambda pair: pair[0].per_image_s)
    point, column = best[0]
    answer = (
        f"{_rate(point)} images/s at most, on {column.name}: {point.model} at "
        f"{units.by_x(point.size)} with a batch of {point.batch}"
    )
    rows = [
        {
            "device": column.name,
            "model": point.model,
            "size": units.by_x(point.size),
            "batch": str(point.batch),
            "images/s": _rate(point),
            "latency ms": formatting.ms(point.latency, "median"),
            "±": formatting.relative_half_width(point.latency),
            "verdict": point.latency.verdict,
        }
        for point, column in best[: view.top]
    ]
    table = screens.table_of(
        rows,
        {"device": "l", "model": "l", "size": "l", "latency ms": ".", "verdict": "l"},
        ("verdict",),
        cut="model",
    )
    return [layout.Text(answer), layout.Section("Fastest point of each device", [table])]


def _rate(point: SweepPoint) -> str:
    return units.per_second(1 / point.per_image_s) if point.per_image_s else "-"


def _side_by_side(record: DeviceSweeps) -> layout.Section:
    """A row for each model, size and batch; a column for each device."""
    points: dict[_What, dict[str, SweepPoint]] = {}
    for column in record.columns:
        for point in column.sweep.points if column.sweep is not None else ():
            key = (point.model, point.size, point.batch)
            points.setdefault(key, {})[column.name] = point
    names = [column.name for column in record.columns]
    rows = [
        [
            model,
            units.by_x(size),
            str(batch),
            *(_cell(points[model, size, batch].get(name)) for name in names),
        ]
        for model, size, batch in sorted(points)
    ]
    header = ["model", "size", "batch", *names]
    table = layout.Table(header, rows, "llr" + "r" * len(names))
    return layout.Section("Latency in ms (median) on each device", [table])


def _cell(point: SweepPoint | None) -> str:
    if point is None:
        return "-"
    text = formatting.ms(point.latency, "median")
    return text if point.latency.verdict == "stable" else f"{text} ({point.latency.verdict})"


def _ends(record: DeviceSweeps) -> list[str]:
    return [
        f"{column.name}, {of_one.end_of_climb(end)}"
        for column in record.columns
        if column.sweep is not None
        for end in column.sweep.ends
    ]


def _missing(record: DeviceSweeps) -> list[str]:
    """Points that are missing for one reason are told of in one line."""
    together: dict[tuple[str, str, str, str], list[int]] = {}
    for column in record.columns:
        for point in column.missing:
            key = (column.name, point.model, point.size, point.why)
            together.setdefault(key, []).append(point.batch)
    return [_why(column, batches, key) for (column, *key), batches in together.items()]


def _why(column: str, batches: list[int], what: list[str]) -> str:
    model, size, why = what
    named = f"{model}, {size}" if size else model
    return f"{column}, {named}, batch {', '.join(map(str, batches))}: {why}"


def _devices(record: DeviceSweeps) -> layout.Section:
    return layout.what_ran([(column.name, _nodes_of(column)) for column in record.columns])


def _nodes_of(column: DeviceColumn) -> str:
    points = len(column.sweep.points) if column.sweep is not None else 0
    return (
        f"{formatting.plural(points, 'point')}, torch {column.torch}, "
        f"{', '.join(column.nodes) or 'no node'}"
    )
