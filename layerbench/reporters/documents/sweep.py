"""The document of a sweep."""

from __future__ import annotations

from layerbench import units
from layerbench.records.sweep import Sweep
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared


def document(record: Sweep) -> layout.Document:
    """Every point, and where the climb to larger batches ended."""
    rows = [
        [
            point.model,
            f"{point.size[0]}x{point.size[1]}",
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            units.per_second(1 / point.per_image_s) if point.per_image_s else "-",
            point.latency.verdict,
            "-" if point.flops is None else f"{point.flops / 1e9:.2f}",
            *shared.memory_cells(point.allocated, point.reserved),
            point.memory,
        ]
        for point in record.points
    ]
    header = ["model", "size", "batch", "latency ms", "an image ms", "images/s", "", "GFLOPs"]
    return layout.Document(
        title="Latency and memory against batch size",
        head=[layout.Fields(shared.surroundings(record.environment))],
        sections=[
            layout.table("Points", [*header, "allocated", "reserved", ""], rows, "llr...lrrrl"),
            _finished(record),
            layout.listed(
                "Where the climb ended", [_end(record, index) for index in range(len(record.ends))]
            ),
            layout.listed("Warnings", record.environment.warnings),
            layout.listed("Notes", record.notes),
        ],
    )


def _end(record: Sweep, index: int) -> str:
    end = record.ends[index]
    verb = "was not measured" if end.fits else "does not fit"
    where = f"{end.model}, {end.size[0]}x{end.size[1]}: a batch of {end.batch}"
    return f"{where} {verb}: {end.why}"


def _finished(record: Sweep) -> layout.Section:
    rows = [
        [
            run.model,
            run.data,
            f"{run.size[0]}x{run.size[1]}",
            f"{run.flops / 1e9:.2f}",
            units.count(run.parameters, short=True),
            shared.percent(run.accuracy),
        ]
        for run in record.runs
    ]
    header = ["model", "data", "size", "GFLOPs an image", "parameters", "val accuracy"]
    return layout.table("Finished trainings", header, rows, "lllrrr")
