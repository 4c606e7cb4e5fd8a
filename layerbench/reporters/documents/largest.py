"""The first screens of structures and memory: the layers that are largest, and in what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from layerbench import units
from layerbench.analysis.portions import Portion, by_name, by_path, largest_first, part_of
from layerbench.records.memory import Category, Interval, MemoryEstimate, MemoryReport, MemoryRow
from layerbench.records.rows import ModuleRow
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.view import Sort, View
from layerbench.records.workload import Workload
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, screens, shared

Memory = MemoryReport | MemoryEstimate

_Module = TypeVar("_Module", bound=ModuleRow)

_ALIGN = {"path": "c", "type": "l", "kernel": "l", "input→output": "l", "output": "l"}


# --- structure -----------------------------------------------------------------------------


def of_structure(record: Structure, view: View) -> list[layout.Part]:
    """What stands below the title of a structure."""
    return [
        *shared.cautions([*_uncounted(record), *record.notes]),
        layout.Text(_totals(record)),
        layout.Text(_looked_at(record)),
        _most_computing(record, view),
        layout.Fields(
            [
                ("By type", screens.sums(_flops_by_type(record), view.width)),
                ("By block", screens.sums(_flops_by_block(record), view.width)),
                ("Params", screens.sums(_parameters_by_type(record), view.width)),
            ]
        ),
    ]


def _uncounted(record: Structure) -> Iterator[str]:
    if record.uncounted:
        names = ", ".join(operator.name for operator in record.uncounted)
        yield f"the FLOPs leave out operators without a formula: {names}"


def _totals(record: Structure) -> str:
    flops = f"{units.flops(record.flops)} ({units.macs(record.macs)}) a forward"
    stored = f"{units.count(record.parameters)} parameters ({units.bytes_(record.parameter_bytes)})"
    return f"{flops}, {stored}"


def _looked_at(record: Structure) -> str:
    how = {"meta": "nothing was computed", "cpu": "a real run on the CPU"}[record.how]
    return ", ".join([*_ran(record.model_type, record.workload), how])


def _most_computing(record: Structure, view: View) -> layout.Section:
    what, amount = _STRUCTURE_ORDERS[view.sort]
    rows = _largest(record.rows, view, amount)
    cells = [
        {
            "path": row.path or screens.MODEL,
            "type": row.type,
            "kernel": _kernel(row),
            "input→output": screens.shapes(row.input_shapes, row.output_shapes),
            "FLOPs": formatting.dash(row.self_flops, _short),
            "share": _share(row.self_flops, record.flops),
            "parameters": _short(row.own_parameters),
            "of all": _share(row.own_parameters, record.parameters),
        }
        for row in rows
    ]
    table = screens.table_of(cells, _ALIGN, ("kernel", "of all", "input→output", "parameters"))
    return layout.Section(_title(what, rows, amount, _structure_sums(record)[view.sort]), [table])


def _kernel(row: StructureRow) -> str:
    """``3x3``, of a depthwise one with its groups ``3x3 /96``."""
    if row.kernel_size is None:
        return "-"
    groups = f" /{row.groups}" if (row.groups or 1) > 1 else ""
    return units.by_x(row.kernel_size) + groups


def _structure_sums(record: Structure) -> dict[Sort, tuple[int, str]]:
    """What a share refers to, and what it is called."""
    flops = (record.flops, "the FLOPs")
    return {
        **dict.fromkeys(("self", "flops", "time"), flops),
        "params": (record.parameters, "the parameters"),
        "memory": (0, ""),
    }


_STRUCTURE_ORDERS: dict[Sort, tuple[str, Callable[[StructureRow], int | None]]] = {
    "self": ("Most FLOPs", lambda row: row.self_flops),
    "flops": ("Most FLOPs", lambda row: row.self_flops),
    "time": ("Most FLOPs with all that is in it", lambda row: row.flops),
    "params": ("Most parameters", lambda row: row.own_parameters),
    "memory": ("Largest output", lambda row: row.output_bytes),
}


def _flops_by_type(record: Structure) -> list[Portion]:
    return by_name(((row.type, row.self_flops or 0) for row in record.rows), record.flops)


def _flops_by_block(record: Structure) -> list[Portion]:
    blocks = ((row.type, row.path, row.flops or 0) for row in record.rows if row.block)
    return by_path(blocks, record.flops)


def _parameters_by_type(record: Structure) -> list[Portion]:
    return by_name(((row.type, row.own_parameters) for row in record.rows), record.parameters)


# --- memory --------------------------------------------------------------------------------


def of_report(record: MemoryReport, view: View) -> list[layout.Part]:
    """What stands below the title of measured memory."""
    peak = record.peak
    where = reached(peak.owner, peak.phase, record)
    answer = f"Peak {_size(peak.bytes)} of tensors alive, reached {where}"
    return [
        *shared.cautions([*record.environment.warnings, *record.notes]),
        layout.Text(answer),
        layout.Text(_ran_for(record, f"measured on {record.environment.device.name}")),
        _most_held(record, peak.bytes, view),
        _sums_at_peak(record, peak.bytes, record.resident_bytes, record.outside_bytes, view),
    ]


def of_estimate(record: MemoryEstimate, fits: str, view: View) -> list[layout.Part]:
    """What stands below the title of predicted memory.

    Args:
        record: the prediction.
        fits: whether it fits into a device's memory; empty where nobody asked.
        view: which rows, in which order.
    """
    where = reached(record.peak_owner, record.peak_phase, record)
    size = _with_interval(record.peak_bytes, record.peak_interval)
    peak = f"Peak {size} allocated, reached {where}"
    whole = f"In all, with the context, {_with_interval(record.total_bytes, record.total_interval)}"
    own = sum(row.self_at_peak or 0 for row in record.rows)
    others = sum(size for name, size in record.by_category.items() if name in _STAYING)
    return [
        *shared.cautions(record.notes),
        layout.Text(peak),
        layout.Text(f"{whole}. {fits}".strip()),
        layout.Text(_ran_for(record, f"predicted for {record.device}")),
        _most_held(record, record.peak_bytes, view),
        _sums_at_peak(record, record.peak_bytes, others, record.peak_bytes - others - own, view),
    ]


def _with_interval(size: int, interval: Interval) -> str:
    return f"{_size(size)} [{_size(interval.low)} to {_size(interval.high)}]"


def _size(size: int) -> str:
    """To a hundredth of a MiB; what is less than one in its own unit."""
    return units.mebibytes(size) if size >= 2**20 else units.bytes_(size)


_STAYING = ("parameters", "buffers", "input")


def reached(owner: str | None, phase: str, record: Memory) -> str:
    """``in the forward of InvertedResidual (features.2)``."""
    if owner is None:
        return {"load": "before the run"}.get(phase, f"in the {phase}")
    types = {row.path: row.type for row in record.rows}
    path = f" ({owner})" if owner else ""
    return f"in the {phase} of {types.get(owner, 'the model')}{path}"


def _ran_for(record: Memory, how: str) -> str:
    run = f"training step with {record.optimizer}" if record.training else "inference"
    return ", ".join([*_ran(record.model_type, record.workload), run, how])


def _most_held(record: Memory, peak: int, view: View) -> layout.Section:
    what, amount = _MEMORY_ORDERS[view.sort]
    rows = _largest(record.rows, view, amount)
    cells = [
        {
            "path": row.path or screens.MODEL,
            "type": row.type,
            "output": screens.shapes((), row.output_shapes),
            "at peak": formatting.dash(row.self_at_peak, units.bytes_),
            "share": _share(row.self_at_peak, peak),
            "allocated": formatting.dash(row.self_allocated, units.bytes_),
            "kept": formatting.dash(row.self_kept, units.bytes_),
            "live peak": formatting.dash(row.live_peak, units.bytes_),
        }
        for row in rows
    ]
    table = screens.table_of(cells, _ALIGN, ("live peak", "allocated", "output", "kept"))
    whole = (peak, "the peak") if view.sort in ("self", "flops", "time") else (0, "")
    return layout.Section(_title(what, rows, amount, whole), [table])


_MEMORY_ORDERS: dict[Sort, tuple[str, Callable[[MemoryRow], int | None]]] = {
    "self": ("Most held at the peak", lambda row: row.self_at_peak),
    "flops": ("Most held at the peak", lambda row: row.self_at_peak),
    "time": ("Most held at the peak with all that is in it", lambda row: row.at_peak),
    "params": ("Most parameters with all that is in it", lambda row: row.parameters),
    "memory": ("Most allocated", lambda row: row.self_allocated),
}


def _sums_at_peak(
    record: Memory, peak: int, resident: int, outside: int, view: View
) -> layout.Fields:
    """By category, by type and by block; each but the last adds up to the peak."""
    peaked = record.peak if isinstance(record, MemoryReport) else record
    held = by_name(((row.type, row.self_at_peak or 0) for row in record.rows), peak)
    others = [
        Portion(name, name, size, part_of(size, peak), 1)
        for name, size in (("there before", resident), ("outside the model", outside))
        if size > 0
    ]
    blocks = ((row.type, row.path, row.at_peak or 0) for row in record.rows if row.block)
    return layout.Fields(
        [
            ("Peak", screens.sums(by_path(_named(peaked.by_category), peak), view.width)),
            ("By type", screens.sums(largest_first([*held, *others]), view.width)),
            ("By block", screens.sums(_some(by_path(blocks, peak)), view.width)),
        ]
    )


def _named(categories: Mapping[Category, int]) -> Iterator[tuple[str, str, float]]:
    return ((name, name, size) for name, size in categories.items() if size)


def _some(portions: Sequence[Portion]) -> list[Portion]:
    return [portion for portion in portions if portion.amount]


# --- both ----------------------------------------------------------------------------------


def _ran(model_type: str, workload: Workload) -> list[str]:
    settings = [workload.mode, workload.dtype, *formatting.variant(workload)]
    return [model_type, units.shape(workload.shape), *dict.fromkeys(settings)]


def _largest(
    rows: Sequence[_Module], view: View, amount: Callable[[_Module], int | None]
) -> list[_Module]:
    """The rows with most of it, of one type where only that is wanted; none without any of it."""
    wanted = [row for row in rows if view.type in (None, row.type) and amount(row)]
    return sorted(wanted, key=lambda row: amount(row) or 0, reverse=True)[: view.top]


def _title(
    what: str,
    rows: Sequence[_Module],
    amount: Callable[[_Module], int | None],
    whole: tuple[int, str],
) -> str:
    if not rows:
        return ""
    total, name = whole
    share = f"{_share(amount(rows[0]), total)} of {name}" if total else ""
    return screens.first_named(what, rows[0].path, rows[0].type, share)


def _share(amount: int | None, whole: int) -> str:
    if amount is None or not whole:
        return "-"
    return units.percent(amount / whole, digits=1)


def _short(number: int) -> str:
    return units.count(number, short=True)
