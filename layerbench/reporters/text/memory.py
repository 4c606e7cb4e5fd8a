"""The text report of measured memory: what the model holds, and who owns the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerbench import units
from layerbench.records.memory import Category, MemoryReport, MemoryRow, TimelinePoint, Totals
from layerbench.records.workload import Workload
from layerbench.reporters import formatting
from layerbench.reporters.text import layout as page
from layerbench.reporters.text.layout import Section

_BAR = 24


def render(record: MemoryReport) -> str:
    """What depends on the machine stands in the last section, the rest is the same everywhere."""
    sections = [
        _header(record),
        _before(record),
        _peak(record),
        blocks(record.rows, record.timeline, record.training),
        tree(record.rows, record.training),
        _tensors(record),
        page.listed("Notes", record.notes),
        _measured_on(record),
    ]
    return page.joined(sections)


def run_name(training: bool, optimizer: str | None) -> str:
    """What ran."""
    return f"training step with {optimizer}" if training else "inference"


def header(title: str, workload: Workload, model_type: str) -> Section:
    """The lines that say what the report is about."""
    return [
        *page.titled(title),
        *page.field("Model", f"{workload.model} ({model_type}), {formatting.weights(workload)}"),
        *page.field("Input", f"{workload.input} {units.shape(workload.shape)}"),
    ]


def _header(record: MemoryReport) -> Section:
    workload = record.workload
    title = f"{formatting.model_name(workload)} on {workload.input}: memory"
    return [
        *header(title, workload, record.model_type),
        *page.field("Run", run_name(record.training, record.optimizer) + ", measured"),
    ]


def _before(record: MemoryReport) -> Section:
    sums = [
        ("parameters", record.parameters),
        ("buffers", record.buffers),
        ("input", record.inputs),
        ("total", record.total),
    ]
    cells = [[name, *_sums(totals)] for name, totals in sums]
    columns = ["", "tensors", "elements", "bytes", "", "in 512-byte blocks", ""]
    return ["Tensors before the run", *page.table(columns, cells, "lrrrrrr")]


def _sums(totals: Totals) -> list[str]:
    return [
        units.count(totals.tensors),
        units.count(totals.elements),
        units.count(totals.bytes),
        units.mebibytes(totals.bytes),
        units.count(totals.block_bytes),
        units.mebibytes(totals.block_bytes),
    ]


def _peak(record: MemoryReport) -> Section:
    peak = record.peak
    held = sum(row.self_at_peak or 0 for row in record.rows)
    lines = [
        f"{units.mebibytes(peak.bytes)} ({units.count(peak.bytes)} bytes) of tensors alive, "
        f"reached {where(peak.owner, peak.phase, record.rows)} by {peak.operator or 'loading'}.",
        f"They are {units.count(record.resident_bytes)} bytes that were there before"
        + (
            f", {units.count(record.outside_bytes)} allocated outside the model (loss, optimizer)"
            if record.outside_bytes
            else ""
        )
        + f" and {units.count(held)} allocated by its layers (column self at peak): together "
        f"{units.count(record.resident_bytes + record.outside_bytes + held)}, the peak exactly.",
    ]
    return [
        "Peak",
        *(part for line in lines for part in page.wrapped(line, "  ")),
        *categories(peak.by_category, peak.bytes),
    ]


def where(owner: str | None, phase: str, rows: Sequence[MemoryRow]) -> str:
    """``in the forward of InvertedResidual (features.2)``."""
    kinds = {row.path: row.type for row in rows}
    if owner is None:
        return {"load": "before the run"}.get(phase, f"in the {phase}")
    path = f" ({owner})" if owner else ""
    return f"in the {phase} of {kinds.get(owner, 'the model')}{path}"


def categories(sums: Mapping[Category, int], whole: int) -> Section:
    """A line for each category of what is alive."""
    width = max((len(name) for name in sums), default=0)
    figures = {name: units.mebibytes(size) for name, size in sums.items()}
    digits = max((len(text) for text in figures.values()), default=0)
    return [
        f"  {name:<{width}}  {figures[name]:>{digits}}  "
        f"{units.percent(size / whole if whole else 0, digits=1):>7}"
        for name, size in sums.items()
    ]


def blocks(rows: Sequence[MemoryRow], timeline: Sequence[TimelinePoint], training: bool) -> Section:
    """The block view, with a picture of the bytes alive while each ran."""
    shown = formatting.block_rows(rows)
    if not shown:
        return []
    top = max((point.live_max for point in timeline), default=0)
    # What is there all the time would make all bars alike.
    base = timeline[0].live_max if timeline else 0
    cells = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            row.path,
            formatting.shape_list(row.output_shapes),
            *_figures(row.allocated, row.kept, row.live_peak, row.at_peak),
            page.bar((row.live_peak or base) - base, top - base, _BAR),
        ]
        for row in shown
    ]
    kept = "kept for backward" if training else "kept"
    names = ["#", "block", "path", "output shape", "allocated", kept, "live peak", "at peak", ""]
    return [
        f"Blocks (MiB; bar: live peak, from {units.mebibytes(base)} at the start to "
        f"{units.mebibytes(top)})",
        *page.table(names, cells, "rlll....l"),
    ]


def tree(rows: Sequence[MemoryRow], training: bool) -> Section:
    """All modules."""
    cells = [
        [
            page.branch(row.type, row.path, row.depth),
            str(row.calls),
            formatting.shape_list(row.output_shapes),
            *_figures(row.allocated, row.kept, row.live_peak, row.self_at_peak),
            formatting.remarks(formatting.not_called(row.calls, row.note), row.note),
        ]
        for row in rows
    ]
    kept = "kept for backward" if training else "kept"
    names = ["layer", "calls", "output shape", "allocated", kept, "live peak", "self at peak", ""]
    legend = (
        "allocated: by the module and those below it, freed again or not; kept: of that, alive "
        "when the forward had ended; live peak: most bytes of all tensors alive while it ran; self "
        "at peak: alive at the peak of the run and allocated by the module itself."
    )
    return ["Layers (MiB)", *page.table(names, cells, "lrl....l"), *page.wrapped(legend, "")]


def _figures(*values: int | None) -> list[str]:
    return ["-" if value is None else units.mebibytes(value, unit=False) for value in values]


def _tensors(record: MemoryReport) -> Section:
    cells = [
        [
            row.name,
            row.role,
            units.shape(row.shape),
            row.dtype,
            units.count(row.elements),
            units.count(row.bytes),
            row.note,
        ]
        for row in record.tensors
    ]
    names = ["tensor", "role", "shape", "dtype", "elements", "bytes", ""]
    return ["Tensors", *page.table(names, cells, "llllrrl")]


def _measured_on(record: MemoryReport) -> Section:
    environment = record.environment
    software = environment.software
    versions = {"python": software.python, **software.packages, "layerbench": software.layerbench}
    lines = [
        *page.field("Device", f"{environment.device.name} ({environment.device.kind})"),
        *page.field("Software", ", ".join(f"{k} {v}" for k, v in versions.items())),
        *_process(record),
        *_allocator(record),
        *page.field("Date", environment.started),
        *page.field("Commit", _commit(record)),
        f"{'Command':<10}{environment.command}",
    ]
    return ["Measured on", *(f"  {line}" for line in lines)]


def _process(record: MemoryReport) -> Section:
    process = record.process
    if process is None:
        return []
    grown = process.peak - process.before
    return page.field(
        "Process",
        f"resident set {units.bytes_(process.before)} before the run, at most "
        f"{units.bytes_(process.peak)} in it: {units.bytes_(grown)} more, for the layers' tensors "
        "and what kernels and libraries take",
    )


def _allocator(record: MemoryReport) -> Section:
    figures = record.allocator
    if figures is None:
        return []
    return page.field(
        "Allocator",
        f"{units.mebibytes(figures.allocated)} allocated and {units.mebibytes(figures.reserved)} "
        "reserved at their peaks",
    )


def _commit(record: MemoryReport) -> str:
    software = record.environment.software
    if software.commit is None:
        return ""
    return software.commit + (" (with uncommitted changes)" if software.dirty else "")
