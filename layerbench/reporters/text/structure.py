"""The text report of a structure: the same on every machine, byte for byte."""

from __future__ import annotations

from layerbench import units
from layerbench.records.structure import Structure, StructureRow
from layerbench.reporters import formatting
from layerbench.reporters.text import layout as page
from layerbench.reporters.text.layout import Section

CONVENTION = (
    "FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as 2 "
    "(MACs: as 1). Element-wise functions, normalization, pooling, softmax, interpolation and "
    "moving data are not counted."
)


def render(record: Structure) -> str:
    """Header, blocks, the tree of all modules, what could not be counted, and the convention."""
    sections = [
        _header(record),
        _totals(record),
        _blocks(record),
        _tree(record),
        page.listed("Not counted", _uncounted(record)),
        page.listed("Notes", record.notes),
        page.listed("Convention", [CONVENTION]),
    ]
    return page.joined(sections)


def _header(record: Structure) -> Section:
    workload = record.workload
    where = {
        "meta": "on the meta device: nothing was allocated and nothing computed",
        "cpu": "in a real run on the CPU",
    }[record.how]
    return [
        *page.titled(f"{formatting.model_name(workload)} on {workload.input}: structure"),
        *page.field("Model", f"{workload.model} ({record.model_type})"),
        *page.field("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *page.field("Mode", workload.mode),
        *page.field("Found", where),
        *page.field("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]


def _totals(record: Structure) -> Section:
    frozen = record.parameters - record.trainable
    more = f", {units.count(frozen)} of them frozen" if frozen else ""
    return [
        "Totals",
        f"  parameters  {units.count(record.parameters)} ({units.bytes_(record.parameter_bytes)})"
        f"{more}",
        f"  buffers     {units.count(record.buffers)} ({units.bytes_(record.buffer_bytes)})",
        f"  FLOPs       {units.count(record.flops)} ({units.flops(record.flops)}), "
        f"{units.macs(record.macs)}",
    ]


def _blocks(record: Structure) -> Section:
    rows = formatting.block_rows(record.rows)
    if not rows:
        return []
    header = ["#", "block", "path", "input shape", "output shape", "parameters", "MFLOPs", "share"]
    cells = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            row.path,
            formatting.shape_list(row.input_shapes),
            formatting.shape_list(row.output_shapes),
            units.count(row.parameters),
            _mega(row.flops),
            _share(row.flops, record),
        ]
        for row in rows
    ]
    return ["Blocks", *page.table(header, cells, "rllllr.r")]


def _tree(record: Structure) -> Section:
    header = ["layer", "calls", "input shape", "output shape", "parameters", "MFLOPs", "output", ""]
    cells = [
        [
            page.branch(row.type, row.path, row.depth),
            str(row.calls),
            formatting.shape_list(row.input_shapes),
            formatting.shape_list(row.output_shapes),
            units.count(row.parameters),
            _mega(row.flops),
            "-" if row.output_bytes is None else units.bytes_(row.output_bytes),
            formatting.remarks(*_remarks(row)),
        ]
        for row in record.rows
    ]
    return ["Layers", *page.table(header, cells, "lrllr.rl")]


def _remarks(row: StructureRow) -> list[str]:
    remarks = [formatting.not_called(row.calls, row.note)]
    if 0 < row.trainable < row.parameters:
        remarks.append(f"{units.count(row.trainable)} trainable")
    elif row.parameters and not row.trainable:
        remarks.append("frozen")
    if row.uncounted:
        remarks.append(f"not counted: {', '.join(row.uncounted)}")
    return [*remarks, row.note]


def _mega(flops: int | None) -> str:
    return "-" if flops is None else f"{flops / 1e6:,.2f}"


def _share(flops: int | None, record: Structure) -> str:
    if flops is None or not record.flops:
        return "-"
    return units.percent(flops / record.flops, digits=1)


def _uncounted(record: Structure) -> list[str]:
    return [
        f"{operator.name}, {formatting.plural(operator.calls, 'call')} in "
        f"{', '.join(path or 'the model itself' for path in operator.paths)}"
        for operator in record.uncounted
    ]
