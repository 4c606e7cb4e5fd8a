"""The document of a structure: the same on every machine, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench import units
from layerbench.analysis.views import down_to
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, peers, shared
from layerbench.reporters.documents.largest import of_structure, structure_cautions

CONVENTION = (
    "FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as 2 "
    "(MACs: as 1). Element-wise functions, normalization, pooling, softmax, interpolation and "
    "moving data are not counted."
)


def document(record: Structure, view: View = USUAL) -> layout.Document:
    """Totals, blocks, the tree of all modules, what could not be counted, and the convention."""
    record = down_to(record, view.depth)
    workload = record.workload
    where = {
        "meta": "on the meta device: nothing was allocated and nothing computed",
        "cpu": "in a real run on the CPU",
    }[record.how]
    fields = [
        ("Model", f"{workload.model} ({record.model_type})"),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *formatting.files(workload),
        ("Mode", workload.mode),
        ("Found", where),
        ("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]
    return layout.Document(
        title=f"{shared.title(workload)}: structure",
        head=of_structure(record, view),
        sections=[
            _totals(record),
            _blocks(record),
            _tree(record, view),
            peers.torchinfo(record.torchinfo),
            layout.listed("Not counted", list(_uncounted(record))),
            layout.listed("Notes", record.notes),
            layout.Section("Convention", [layout.Lines([CONVENTION])], formats=layout.FULL),
            layout.what_ran(fields),
        ],
    )


def totals(record: Structure) -> list[layout.Section]:
    """Sums over the model, and what could not be counted: all but the rows of layers."""
    return [_totals(record), layout.listed("Not counted", list(_uncounted(record)))]


def _totals(record: Structure) -> layout.Section:
    frozen = record.parameters - record.trainable
    more = f", {units.count(frozen)} of them frozen" if frozen else ""
    parameters = f"{units.count(record.parameters)} ({units.bytes_(record.parameter_bytes)}){more}"
    flops = f"{units.count(record.flops)} ({units.flops(record.flops)})"
    rows = [
        ["parameters", parameters],
        ["buffers", f"{units.count(record.buffers)} ({units.bytes_(record.buffer_bytes)})"],
        ["FLOPs", f"{flops}, {units.macs(record.macs)}"],
    ]
    return layout.Section("Totals", [layout.Table([], rows, "ll")])


def _blocks(record: Structure) -> layout.Section:
    rows = [
        {
            **shared.block_cells(row),
            **_figures(row),
            "share": formatting.part(row.flops, record.flops),
        }
        for row in formatting.block_rows(record.rows)
    ]
    return layout.table("Blocks", rows, "rlcllr.r", omitted_first=("input shape",))


def _tree(record: Structure, view: View) -> layout.Section:
    rows = [
        {
            "layer": shared.branch(row, view),
            "calls": str(row.calls),
            **_figures(row),
            "output": formatting.dash(row.output_bytes, units.bytes_),
            "": formatting.remarks(*_remarks(row)),
        }
        for row in record.rows
        if view.has(row.type, row.depth)
    ]
    omitted = ("calls", "output", "input shape")
    return layout.table("Layers", rows, "lrllr.rl", formats=layout.FULL, omitted_first=omitted)


def _figures(row: StructureRow) -> dict[str, str]:
    return {
        "input shape": formatting.shape_list(row.input_shapes),
        "output shape": formatting.shape_list(row.output_shapes),
        "parameters": units.count(row.parameters),
        "MFLOPs": "-" if row.flops is None else f"{row.flops / 1e6:,.2f}",
    }


def _remarks(row: StructureRow) -> list[str]:
    remarks = [formatting.not_called(row.calls, row.note)]
    if 0 < row.trainable < row.parameters:
        remarks.append(f"{units.count(row.trainable)} trainable")
    elif row.parameters and not row.trainable:
        remarks.append("frozen")
    if row.uncounted:
        remarks.append(f"not counted: {', '.join(row.uncounted)}")
    return [*remarks, row.note]


def _uncounted(record: Structure) -> Iterator[str]:
    for operator in record.uncounted:
        paths = ", ".join(path or "the model itself" for path in operator.paths)
        yield f"{operator.name}, {formatting.plural(operator.calls, 'call')} in {paths}"


def cautions(record: Structure) -> list[str]:
    """What weakens the sums, the gravest first."""
    return structure_cautions(record)


rows = cells.modules
