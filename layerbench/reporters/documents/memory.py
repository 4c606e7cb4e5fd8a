"""The documents of measured and predicted memory: the bytes held and the peak's owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerbench import units
from layerbench.analysis.views import down_to
from layerbench.records.memory import (
    Category,
    Fit,
    Interval,
    MemoryEstimate,
    MemoryReport,
    MemoryRow,
    Workspace,
)
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, peers, shared, trifles
from layerbench.reporters.documents.largest import of_estimate, of_report, reached, weakening

_BAR = 24
_LEGEND = (
    "allocated: by the module and those below it, freed again or not; kept: of that, alive "
    "when the forward had ended; live peak: most bytes of all tensors alive while it ran; self "
    "at peak: alive at the peak of the run and allocated by the module itself."
)

Memory = MemoryReport | MemoryEstimate


def document(record: Memory, view: View = USUAL) -> layout.Document:
    """Of either kind."""
    if isinstance(record, MemoryReport):
        return _measured(down_to(record, view.depth), view)
    return _predicted(down_to(record, view.depth), view)


def _measured(record: MemoryReport, view: View) -> layout.Document:
    """What depends on the machine stands in the last sections, the rest is the same everywhere."""
    return layout.Document(
        title=f"{shared.title(record.workload)}: memory",
        head=of_report(record, view),
        sections=[
            _before(record),
            _peak(record),
            _blocks(record),
            _tree(record, view),
            _tensors(record),
            peers.memlab(record.memlab),
            *peers.line_profiles(record.memlab),
            layout.listed("Notes", record.notes),
            layout.what_ran(_what_ran(record, ", measured")),
            _measured_on(record),
        ],
    )


def _predicted(record: MemoryEstimate, view: View) -> layout.Document:
    """The figures with their intervals first, then their terms."""
    how = {
        "fake": "from shapes alone, as cuda tensors without a device",
        "replayed": "from a real run on the CPU, replayed through a model of the allocator",
    }[record.how]
    fields = [
        *_what_ran(record, ""),
        ("Predicted", how),
        ("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]
    return layout.Document(
        title=f"{shared.title(record.workload)}: memory predicted for {record.on}",
        head=of_estimate(record, _fit(record.fit), view),
        sections=[
            _predicted_peak(record),
            layout.Section("Fit", [layout.Text(_fit(record.fit))]),
            _at_peak(record),
            _terms(record),
            _blocks(record),
            _tree(record, view),
            layout.listed("Notes", record.notes),
            layout.what_ran(fields),
        ],
    )


def _what_ran(record: Memory, how: str) -> list[tuple[str, str]]:
    workload = record.workload
    ran = f"training step with {record.optimizer}" if record.training else "inference"
    return [
        (
            "Model",
            f"{workload.model} ({record.model_type}), {formatting.weights(workload)}",
        ),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *formatting.files(workload),
        ("Run", ran + how),
    ]


# --- measured ------------------------------------------------------------------------------


def _before(record: MemoryReport) -> layout.Section:
    sums = {
        "parameters": record.parameters,
        "buffers": record.buffers,
        "input": record.inputs,
        "total": record.total,
    }
    rows = [
        [
            name,
            units.count(totals.tensors),
            units.count(totals.elements),
            units.count(totals.bytes),
            units.mebibytes(totals.bytes),
            units.count(totals.block_bytes),
            units.mebibytes(totals.block_bytes),
        ]
        for name, totals in sums.items()
    ]
    header = ["", "tensors", "elements", "bytes", "", "in 512-byte blocks", ""]
    table = layout.Table(header, rows, "lrrrrrr")
    return layout.Section("Tensors before the run", [table])


def _peak(record: MemoryReport) -> layout.Section:
    peak = record.peak
    own = sum(row.self_at_peak or 0 for row in record.rows)
    outside = record.outside_bytes
    besides = (
        f", {units.count(outside)} allocated outside the model (loss, optimizer)" if outside else ""
    )
    size = (
        f"{units.mebibytes(peak.bytes)} ({units.count(peak.bytes)} bytes) of tensors alive, "
        f"reached {reached(peak.owner, peak.phase, record)} by {peak.operator or 'loading'}."
    )
    parts = (
        f"They are {units.count(record.resident_bytes)} bytes that were there before{besides} and "
        f"{units.count(own)} allocated by its layers (column self at peak): together "
        f"{units.count(record.resident_bytes + outside + own)}, the peak exactly."
    )
    return layout.Section(
        "Peak", [layout.Text(size), layout.Text(parts), _categories(peak.by_category, peak.bytes)]
    )


def _tensors(record: MemoryReport) -> layout.Section:
    rows = [
        {
            "tensor": row.name,
            "role": row.role,
            "shape": units.shape(row.shape),
            "dtype": row.dtype,
            "elements": units.count(row.elements),
            "bytes": units.count(row.bytes),
            "": row.note,
        }
        for row in record.tensors
    ]
    return layout.table("Tensors", rows, "llllrrl", formats=layout.FULL)


def _measured_on(record: MemoryReport) -> layout.Section:
    environment = record.environment
    fields = [
        ("Device", f"{environment.device.name} ({environment.device.kind})"),
        ("Software", shared.versions(environment.software)),
        ("Process", _process(record)),
        ("Allocator", _allocator(record)),
        ("Date", environment.started),
        ("Commit", shared.commit(environment.software)),
        (layout.COMMAND, environment.command),
    ]
    return layout.Section("Measured on", [layout.Fields(fields)], formats=layout.FULL)


def _process(record: MemoryReport) -> str:
    process = record.process
    if process is None:
        return ""
    return (
        f"resident set {units.bytes_(process.before)} before the run, at most "
        f"{units.bytes_(process.peak)} in it: {units.bytes_(process.peak - process.before)} more, "
        "for the layers' tensors and what kernels and libraries take"
    )


def _allocator(record: MemoryReport) -> str:
    figures = record.allocator
    if figures is None:
        return ""
    return (
        f"{units.mebibytes(figures.allocated)} allocated and {units.mebibytes(figures.reserved)} "
        "reserved at their peaks"
    )


# --- predicted -----------------------------------------------------------------------------


def _predicted_peak(record: MemoryEstimate) -> layout.Section:
    allocated, reserved = "torch.cuda.max_memory_allocated", "torch.cuda.max_memory_reserved"
    as_tools_show = "with the context, as the device's own tools show it"
    figures = [
        ("allocated", record.peak_bytes, record.peak_interval, allocated),
        ("reserved", record.reserved_bytes, record.reserved_interval, reserved),
        ("in all", record.total_bytes, record.total_interval, as_tools_show),
    ]
    rows = [
        {
            "": name,
            "MiB": formatting.mebibytes(size),
            "interval": _interval(interval),
            "comparable to": same_as,
        }
        for name, size, interval, same_as in figures
    ]
    return layout.table("Peak (prediction)", rows, "lrrl")


def _interval(interval: Interval | Workspace) -> str:
    low, high = (units.mebibytes(value, unit=False) for value in (interval.low, interval.high))
    return f"[{low}, {high}]"


def _fit(fit: Fit | None) -> str:
    """Whether it fits, and the largest batch that does; empty without a GPU's memory."""
    if fit is None:
        return ""
    size = units.bytes_(fit.memory_bytes)
    verdict = {
        "yes": f"It fits into {size}.",
        "no": f"It does not fit into {size}.",
        "unclear": f"Whether it fits into {size} cannot be said: the interval holds that size.",
    }[fit.fits]
    if fit.largest_batch and fit.largest_batch_peak is not None:
        verdict += (
            f" The largest batch that does is {units.count(fit.largest_batch)} "
            f"(at most {units.bytes_(fit.largest_batch_peak)} in all)."
        )
    elif fit.largest_batch == 0:
        verdict += " No batch does."
    return verdict


def _at_peak(record: MemoryEstimate) -> layout.Section:
    where = reached(record.peak_owner, record.peak_phase, record)
    return layout.Section(
        "At the allocated peak",
        [
            layout.Text(f"reached {where} by {record.peak_operator or 'loading'}"),
            _categories(record.by_category, record.peak_bytes),
        ],
    )


def _terms(record: MemoryEstimate) -> layout.Section:
    lines = [
        f"{term.name}: {units.mebibytes(term.bytes)} {_interval(term)}, "
        f"{'handed out by the allocator' if term.inside else 'outside the allocator'}; {term.why}"
        for term in record.workspaces
    ]
    return layout.listed("Terms besides tensors", lines)


# --- both ----------------------------------------------------------------------------------


def totals(record: Memory) -> list[layout.Section]:
    """What is held before the run and at the peak: all but the rows of layers."""
    if isinstance(record, MemoryReport):
        return [_before(record), _peak(record)]
    return [_predicted_peak(record), _at_peak(record), _terms(record)]


def _categories(sums: Mapping[Category, int], whole: int) -> layout.Table:
    """A line for each category of live bytes."""
    shares = {name: size / whole if whole else 0 for name, size in sums.items()}
    rows = [
        [name, units.mebibytes(size), f"{units.percent(shares[name], digits=1):>7}"]
        for name, size in sums.items()
    ]
    return layout.Table([], rows, "lrr")


def _blocks(record: Memory) -> layout.Section:
    """The block view, with a picture of the bytes alive while each ran."""
    timeline = record.timeline
    top = max((point.live_max for point in timeline), default=0)
    # What is there all the time would make all bars alike.
    base = timeline[0].live_max if timeline else 0
    rows = [
        {
            **shared.block_cells(row),
            "output shape": formatting.shape_list(row.output_shapes),
            **_figures(row, record),
            "at peak": formatting.mebibytes(row.at_peak),
            "": formatting.bar((row.live_peak or base) - base, top - base, _BAR),
        }
        for row in formatting.block_rows(record.rows)
    ]
    ends = f"{units.mebibytes(base)} at the start to {units.mebibytes(top)}"
    title = f"Blocks (MiB; bar: live peak, from {ends})"
    return layout.table(title, rows, "rlcl....l", omitted_first=("kept", "output shape"))


def _tree(record: Memory, view: View) -> layout.Section:
    shown = [row for row in record.rows if view.has(row.type, row.depth)]
    runs = trifles.in_runs(shown, view, _held, _peak_bytes(record), trifles.LEAST_OF_MORE)
    rows = [
        _layer(run[0], record, view) if len(run) == 1 else _folded(run, record, view)
        for run in runs
    ]
    legend = layout.Text(_LEGEND, indented=False)
    omitted = ("calls", "kept", "output shape")
    return layout.table(
        "Layers (MiB)", rows, "lrl....l", legend, formats=layout.FULL, omitted_first=omitted
    )


def _layer(row: MemoryRow, record: Memory, view: View) -> dict[str, str]:
    return {
        "layer": shared.branch(row, view),
        "calls": str(row.calls),
        "output shape": formatting.shape_list(row.output_shapes),
        **_figures(row, record),
        "self at peak": formatting.mebibytes(row.self_at_peak),
        "": formatting.note_on(row.calls, row.note),
    }


def _folded(rows: Sequence[MemoryRow], record: Memory, view: View) -> dict[str, str]:
    """One row for neighbours that allocate next to nothing."""
    return {
        **dict.fromkeys(_layer(rows[0], record, view), ""),
        "layer": trifles.label(rows, trifles.LEAST_OF_MORE),
        "allocated": formatting.mebibytes(sum(row.allocated or 0 for row in trifles.outer(rows))),
        "self at peak": formatting.mebibytes(sum(row.self_at_peak or 0 for row in rows)),
    }


def _held(row: MemoryRow) -> float | None:
    """What it allocates, or holds at the peak; one that was not called has a row that says so."""
    return max(row.allocated or 0, row.at_peak or 0) if row.calls else None


def _peak_bytes(record: Memory) -> int:
    return record.peak.bytes if isinstance(record, MemoryReport) else record.peak_bytes


def _figures(row: MemoryRow, record: Memory) -> dict[str, str]:
    return {
        "allocated": formatting.mebibytes(row.allocated),
        "kept for backward" if record.training else "kept": formatting.mebibytes(row.kept),
        "live peak": formatting.mebibytes(row.live_peak),
    }


def cautions(record: Memory) -> list[str]:
    """What weakens the sums."""
    return weakening(record)


rows = cells.modules
