"""The first screens of structures and memory: the layers that are largest, and in what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from layerbench import units
from layerbench.analysis.largest import largest, layers
from layerbench.analysis.portions import Large, Portion, by_path, by_type, largest_first, part_of
from layerbench.records.memory import (
    Category,
    Interval,
    MemoryEstimate,
    MemoryReport,
    MemoryRow,
)
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.view import View
from layerbench.records.workload import CHECKPOINTED, Workload
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, screens, shared

Memory = MemoryReport | MemoryEstimate

_ALIGN = {"path": "c", "type": "l", "kernel": "l", "input→output": "l", "output": "l"}


# --- structure -----------------------------------------------------------------------------


def of_structure(record: Structure, view: View) -> list[layout.Part]:
    """What stands below the title of a structure."""
    return [
        *shared.cautions(structure_cautions(record)),
        layout.Text(_totals(record)),
        layout.Text(_looked_at(record)),
        _most_computing(record, view),
        layout.Fields(
            [
                ("By type", screens.sums(by_type(layers(record, "flops")), view.width)),
                ("By block", screens.sums(_flops_by_block(record), view.width)),
                ("Params", screens.sums(by_type(layers(record, "params")), view.width)),
            ]
        ),
    ]


def structure_cautions(record: Structure) -> list[str]:
    """What weakens the sums, the gravest first."""
    return [*_uncounted(record), *record.notes]


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
    most = largest(record, view)
    if not most:
        return screens.none_shown(view.type, (row.type for row in record.rows))
    cells = [_computing(each.row, record) for each in most]
    table = screens.table_of(cells, _ALIGN, ("kernel", "of all", "input→output", "parameters"))
    return layout.Section(_title(most, "bytes of output"), [table])


def _computing(row: StructureRow, record: Structure) -> dict[str, str]:
    return {
        "path": row.path or screens.MODEL,
        "type": row.type,
        "kernel": _kernel(row),
        "input→output": screens.shapes(row.input_shapes, row.output_shapes),
        "FLOPs": formatting.dash(row.self_flops, _short),
        "share": formatting.part(row.self_flops, record.flops),
        "parameters": _short(row.own_parameters),
        "of all": formatting.part(row.own_parameters, record.parameters),
    }


def _kernel(row: StructureRow) -> str:
    """``3x3``, of a depthwise one with its groups ``3x3 /96``."""
    if row.kernel_size is None:
        return "-"
    groups = f" /{row.groups}" if (row.groups or 1) > 1 else ""
    return units.by_x(row.kernel_size) + groups


def _flops_by_block(record: Structure) -> list[Portion]:
    blocks = ((row.type, row.path, row.flops or 0) for row in record.rows if row.block)
    return by_path(blocks, record.flops)


# --- memory --------------------------------------------------------------------------------


def weakening(record: Memory) -> list[str]:
    """The notes that weaken the sums; which modules run again does not."""
    return [note for note in record.notes if not note.startswith(CHECKPOINTED)]


def of_report(record: MemoryReport, view: View) -> list[layout.Part]:
    """What stands below the title of measured memory."""
    peak = record.peak
    return [
        # A busy machine holds as many bytes as any.
        *shared.cautions(weakening(record)),
        layout.Text(answer(record)),
        layout.Text(_ran_for(record, f"measured on {record.environment.device.kind}")),
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
    whole = f"In all, with the context, {_with_interval(record.total_bytes, record.total_interval)}"
    own = sum(row.self_at_peak or 0 for row in record.rows)
    others = sum(size for name, size in record.by_category.items() if name in _STAYING)
    return [
        *shared.cautions(weakening(record)),
        layout.Text(answer(record)),
        layout.Text(f"{whole}. {fits}".strip()),
        layout.Text(_ran_for(record, f"predicted for {record.on}")),
        _most_held(record, record.peak_bytes, view),
        _sums_at_peak(record, record.peak_bytes, others, record.peak_bytes - others - own, view),
    ]


def answer(record: Memory) -> str:
    """The peak, and the module that ran then."""
    if isinstance(record, MemoryReport):
        where = reached(record.peak.owner, record.peak.phase, record)
        return f"Peak {_size(record.peak.bytes)} of tensors alive, reached {where}"
    where = reached(record.peak_owner, record.peak_phase, record)
    size = _with_interval(record.peak_bytes, record.peak_interval)
    return f"Peak {size} allocated, reached {where}"


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
    most = largest(record, view)
    if not most:
        return screens.none_shown(view.type, (row.type for row in record.rows))
    cells = [_held(each.row, peak) for each in most]
    table = screens.table_of(cells, _ALIGN, ("live peak", "allocated", "output", "kept"))
    if most[0].of == "memory":
        # Of the peak, not of what all layers hold then.
        most = [replace(most[0], share=part_of(most[0].value, peak))]
    return layout.Section(_title(most, "held at the peak", "of the peak"), [table])


def _held(row: MemoryRow, peak: int) -> dict[str, str]:
    return {
        "path": row.path or screens.MODEL,
        "type": row.type,
        "output": screens.shapes((), row.output_shapes),
        "at peak": formatting.dash(row.self_at_peak, units.bytes_),
        "share": formatting.part(row.self_at_peak, peak),
        "allocated": formatting.dash(row.self_allocated, units.bytes_),
        "kept": formatting.dash(row.self_kept, units.bytes_),
        "live peak": formatting.dash(row.live_peak, units.bytes_),
    }


def _sums_at_peak(
    record: Memory, peak: int, resident: int, outside: int, view: View
) -> layout.Fields:
    """By category, by type and by block; each but the last adds up to the peak."""
    peaked = record.peak if isinstance(record, MemoryReport) else record
    held = [
        replace(each, share=part_of(each.value, peak)) for each in by_type(layers(record, "memory"))
    ]
    others = by_path(_named({"there before": resident, "outside the model": outside}), peak)
    blocks = ((row.type, row.path, row.at_peak or 0) for row in record.rows if row.block)
    return layout.Fields(
        [
            ("Peak", screens.sums(by_path(_named(peaked.by_category), peak), view.width)),
            ("By type", screens.sums(largest_first([*held, *others]), view.width)),
            ("By block", screens.sums(by_path(blocks, peak), view.width)),
        ]
    )


def _named(sizes: Mapping[Category, int] | Mapping[str, int]) -> list[tuple[str, str, float]]:
    return [(name, name, size) for name, size in sizes.items()]


# --- both ----------------------------------------------------------------------------------


def _ran(model_type: str, workload: Workload) -> list[str]:
    settings = [workload.mode, workload.arithmetic, *formatting.variant(workload)]
    return [model_type, units.shape(workload.shape), *dict.fromkeys(settings)]


def _title(most: Sequence[Large], memory: str, of_memory: str = "of all") -> str:
    """What is sorted how, with the first layer.

    Args:
        most: the layers.
        memory: what is meant by memory.
        of_memory: what shares of it refer to.
    """
    first = most[0]
    what = {"flops": "FLOPs", "params": "parameters"}.get(first.of, memory)
    whole = of_memory if first.of == "memory" else "of all"
    share = f"{units.percent(first.share, digits=1)} {whole}"
    return screens.first_named(f"Most {what}", first.row.path, first.row.type, share)


def _short(number: int) -> str:
    return units.count(number, short=True)
