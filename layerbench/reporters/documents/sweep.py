"""The document of a sweep."""

from __future__ import annotations

from layerbench import units
from layerbench.records.sweep import Sweep, SweepEnd
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared

_FIGURES = ("median", "ci_low", "ci_high", "mean", "std")


def document(record: Sweep) -> layout.Document:
    """Every point, and where the climb to larger batches ended."""
    ends = [_end(end) for end in record.ends]
    return layout.Document(
        title="Latency and memory against batch size",
        head=[layout.Fields(shared.surroundings(record.environment))],
        sections=[
            _points(record),
            _finished(record),
            layout.listed("Where the climb ended", ends),
            *shared.warnings_and_notes(record),
        ],
    )


def _points(record: Sweep) -> layout.Section:
    rows = [
        [
            point.model,
            _size(point.size),
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            units.per_second(1 / point.per_image_s) if point.per_image_s else "-",
            point.latency.verdict,
            "-" if point.flops is None else f"{point.flops / 1e9:.2f}",
            formatting.dash(point.allocated, units.bytes_),
            formatting.dash(point.reserved, units.bytes_),
            point.memory,
        ]
        for point in record.points
    ]
    header = [
        "model", "size", "batch", "latency ms", "an image ms", "images/s", "", "GFLOPs",
        "allocated", "reserved", "",
    ]  # fmt: skip
    return layout.Section("Points", [layout.Table(header, rows, "llr...lrrrl")])


def _end(end: SweepEnd) -> str:
    verb = "was not measured" if end.fits else "does not fit"
    return f"{end.model}, {_size(end.size)}: a batch of {end.batch} {verb}: {end.why}"


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _finished(record: Sweep) -> layout.Section:
    rows = [
        {
            "model": run.model,
            "data": run.data,
            "size": _size(run.size),
            "GFLOPs an image": f"{run.flops / 1e9:.2f}",
            "parameters": units.count(run.parameters, short=True),
            "val accuracy": shared.percent(run.accuracy),
        }
        for run in record.runs
    ]
    return layout.table("Finished trainings", rows, "lllrrr")


def rows(record: Sweep) -> cells.Rows:
    """A row a point."""
    points: list[cells.Cells] = [
        {
            "model": point.model,
            "height": point.size[0],
            "width": point.size[1],
            "batch": point.batch,
            "dtype": record.dtype,
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
