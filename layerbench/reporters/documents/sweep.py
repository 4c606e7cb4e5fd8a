"""The document of a sweep."""

from __future__ import annotations

from layerbench import units
from layerbench.records.sweep import Sweep, SweepEnd, SweepPoint
from layerbench.records.view import USUAL, View
from layerbench.records.workload import arithmetic_of
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared

_FIGURES = ("median", "ci_low", "ci_high", "mean", "std")


def document(record: Sweep, view: View = USUAL) -> layout.Document:
    """Every point, and where the climb to larger batches ended."""
    ends = [end_of_climb(end) for end in record.ends]
    return layout.Document(
        title="Latency and memory against batch size",
        head=[
            *shared.weaknesses(record.environment, None, *_unstable(record)),
            *_fastest(record, view),
        ],
        sections=[
            _points(record),
            _finished(record),
            layout.listed("Where the climb ended", ends),
            *shared.warnings_and_notes(record),
            layout.what_ran(shared.surroundings(record.environment)),
        ],
    )


def _unstable(record: Sweep) -> list[str]:
    unstable = sum(point.latency.verdict != "stable" for point in record.points)
    points = formatting.plural(len(record.points), "point")
    return [f"{unstable} of {points} not stable"] if unstable else []


def _fastest(record: Sweep, view: View) -> list[layout.Part]:
    """Of each model and size the batch with most images a second, the fastest first."""
    best: dict[tuple[str, tuple[int, int]], SweepPoint] = {}
    for point in record.points:
        key = (point.model, point.size)
        if key not in best or point.per_image_s < best[key].per_image_s:
            best[key] = point
    fastest = sorted(best.values(), key=lambda point: point.per_image_s)
    if not fastest:
        return [layout.Text("nothing was measured")]
    first = fastest[0]
    answer = (
        f"{_rate(first)} images/s at most: {first.model} at {units.by_x(first.size)} with a batch "
        f"of {first.batch}, {formatting.time(first.latency, 'median')} "
        f"{formatting.interval(first.latency)} a forward (median, 95 % interval)"
    )
    models = formatting.plural(len({point.model for point in record.points}), "model")
    points = formatting.plural(len(record.points), "point")
    ran = f"{models}, {points}, {arithmetic_of(record.dtype, record.precision)}, "
    ran += f"checkpoint {record.checkpoint}, " if record.checkpoint else ""
    table = screens.table_of(
        [_best(point) for point in fastest[: view.top]],
        {"model": "l", "size": "l", "latency ms": ".", "verdict": "l"},
        ("allocated", "verdict"),
        cut="model",
    )
    return [
        layout.Text(answer),
        layout.Text(ran + record.environment.device.name),
        layout.Section("Fastest batch of each model and size", [table]),
    ]


def _best(point: SweepPoint) -> dict[str, str]:
    return {
        "model": point.model,
        "size": units.by_x(point.size),
        "batch": str(point.batch),
        "images/s": _rate(point),
        "latency ms": formatting.ms(point.latency, "median"),
        "±": formatting.relative_half_width(point.latency),
        "verdict": point.latency.verdict,
        "allocated": formatting.dash(point.allocated, units.bytes_),
    }


def _rate(point: SweepPoint) -> str:
    return units.per_second(1 / point.per_image_s) if point.per_image_s else "-"


def _points(record: Sweep) -> layout.Section:
    kinds = {point.memory for point in record.points}
    alike = len(kinds) == 1
    rows = [
        [
            point.model,
            units.by_x(point.size),
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            _rate(point),
            point.latency.verdict,
            "-" if point.flops is None else f"{point.flops / 1e9:.2f}",
            formatting.dash(point.allocated, units.bytes_),
            formatting.dash(point.reserved, units.bytes_),
            *([] if alike else [point.memory]),
        ]
        for point in record.points
    ]
    header = [
        "model", "size", "batch", "latency ms", "an image ms", "images/s", "", "GFLOPs",
        "allocated", "reserved", *([] if alike else [""]),
    ]  # fmt: skip
    align = "llr...lrrr" if alike else "llr...lrrrl"
    title = "Points (memory predicted for a GPU)" if kinds == {"predicted"} else "Points"
    # The rate says as much as the time of an image.
    omitted = (header.index("an image ms"),)
    return layout.Section(title, [layout.Table(header, rows, align, omitted_first=omitted)])


def end_of_climb(end: SweepEnd) -> str:
    """One sentence on where a climb ended."""
    verb = "was not measured" if end.fits else "does not fit"
    return f"{end.model}, {units.by_x(end.size)}: a batch of {end.batch} {verb}: {end.why}"


def _finished(record: Sweep) -> layout.Section:
    rows = [
        {
            "model": run.model,
            "data": run.data,
            "size": units.by_x(run.size),
            "GFLOPs an image": f"{run.flops / 1e9:.2f}",
            "parameters": units.count(run.parameters, short=True),
            "val accuracy": shared.percent(run.accuracy),
        }
        for run in record.runs
    ]
    return layout.table("Finished trainings", rows, "lllrrr")


def cautions(record: Sweep) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, None, *_unstable(record))


def rows(record: Sweep) -> cells.Rows:
    """A row a point."""
    points: list[cells.Cells] = [
        {
            "model": point.model,
            "height": point.size[0],
            "width": point.size[1],
            "batch": point.batch,
            **cells.formats(record),
            **cells.place(record.environment),
            **{f"{name}_s": getattr(point.latency, name) for name in _FIGURES},
            "verdict": point.latency.verdict,
            **cells.fields(point, "per_image_s", "flops"),
            "allocated_bytes": point.allocated,
            "reserved_bytes": point.reserved,
            "memory": point.memory,
        }
        for point in record.points
    ]
    return {}, points
