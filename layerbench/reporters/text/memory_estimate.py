"""The text report of a predicted peak."""

from __future__ import annotations

from layerbench import units
from layerbench.records.memory import Interval, MemoryEstimate
from layerbench.reporters import formatting
from layerbench.reporters.text import layout as page
from layerbench.reporters.text import memory
from layerbench.reporters.text.layout import Section


def render(record: MemoryEstimate) -> str:
    """The figures with their intervals first, then what they are made of."""
    sections = [
        _header(record),
        _figures(record),
        _fit(record),
        _at_peak(record),
        _terms(record),
        memory.blocks(record.rows, record.timeline, record.training),
        memory.tree(record.rows, record.training),
        page.listed("Notes", record.notes),
    ]
    return page.joined(sections)


def _header(record: MemoryEstimate) -> Section:
    workload = record.workload
    how = {
        "fake": f"from shapes alone, as {record.device} tensors without a device",
        "replayed": "from a real run on the CPU, replayed through a model of the allocator",
    }[record.how]
    name = formatting.model_name(workload)
    title = f"{name} on {workload.input}: memory predicted for {record.device}"
    return [
        *memory.header(title, workload, record.model_type),
        *page.field("Run", memory.run_name(record.training, record.optimizer)),
        *page.field("Predicted", how),
        *page.field("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]


def _figures(record: MemoryEstimate) -> Section:
    rows = [
        ("allocated", record.peak_bytes, record.peak_interval, "torch.cuda.max_memory_allocated"),
        (
            "reserved",
            record.reserved_bytes,
            record.reserved_interval,
            "torch.cuda.max_memory_reserved",
        ),
        (
            "in all",
            record.total_bytes,
            record.total_interval,
            "with the context, as the device's own tools show it",
        ),
    ]
    cells = [
        [name, units.mebibytes(value, unit=False), _interval(interval), why]
        for name, value, interval, why in rows
    ]
    return [
        "Peak (prediction)",
        *page.table(["", "MiB", "interval", "comparable to"], cells, "lrrl"),
    ]


def _interval(interval: Interval) -> str:
    low, high = (units.mebibytes(value, unit=False) for value in (interval.low, interval.high))
    return f"[{low}, {high}]"


def _fit(record: MemoryEstimate) -> Section:
    fit = record.fit
    if fit is None:
        return []
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
    return ["Fit", *page.wrapped(verdict, "  ")]


def _at_peak(record: MemoryEstimate) -> Section:
    reached = memory.where(record.peak_owner, record.peak_phase, record.rows)
    return [
        "At the allocated peak",
        *page.wrapped(f"reached {reached} by {record.peak_operator or 'loading'}", "  "),
        *memory.categories(record.by_category, record.peak_bytes),
    ]


def _terms(record: MemoryEstimate) -> Section:
    lines = [
        f"{term.name}: {units.mebibytes(term.bytes)} "
        f"[{units.mebibytes(term.low, unit=False)}, {units.mebibytes(term.high, unit=False)}], "
        f"{'handed out by the allocator' if term.inside else 'outside the allocator'}; {term.why}"
        for term in record.workspaces
    ]
    return page.listed("Terms besides tensors", lines)
