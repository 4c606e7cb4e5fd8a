"""What is told of a compiled model: its kernels, how far they are known, and what interrupts it."""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum

from layerbench import units
from layerbench.analysis.portions import part_of
from layerbench.records.timing import NOTHING_COMPILED, Profile
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout

SHARED = "≈"
"""Before a time, or behind it, that is partly a share in kernels with other layers in them."""
SHARED_MEANS = (
    f"{SHARED} partly a share in kernels with other layers in them, by what each moves and computes"
)


def mark(part: float | None) -> str:
    """The mark of a time with such a part of shared time."""
    return SHARED if part else ""


def has_shares(record: Profile) -> bool:
    """Whether any time of the record has the mark."""
    return any(row.shared is not None or row.self_shared is not None for row in record.layers)


def kernels_s(record: Profile) -> float:
    """Mean time of all kernels in one forward, seconds."""
    return fsum(kernel.time.mean for kernel in record.kernels)


def answer(record: Profile) -> str:
    """Behind the answer: what became of the layers; empty for a model that is not compiled."""
    made = record.compilation
    if made is None or NOTHING_COMPILED in record.notes:
        return ""
    graphs = formatting.plural(made.graphs, "graph")
    took = f"Compiled ({made.mode}) in {units.seconds(made.seconds)}: {graphs}"
    if not record.kernels or made.kernels is None:
        return f"{took}."
    part = part_of(kernels_s(record), record.base.mean)
    whole = "the device's time" if record.device_rounds else "the compiled forward"
    fused = f", {made.fused} of them with several layers in them" if made.fused else ""
    return (
        f"{took}, {formatting.plural(made.kernels, 'kernel')}{fused}. The kernels take "
        f"{units.percent(part, digits=1)} of {whole}."
    )


def cautions(record: Profile) -> Iterator[str]:
    """What makes a compiled model slower than it could be, each in a line."""
    made = record.compilation
    if made is None:
        return
    if made.breaks:
        number = sum(one.calls for one in made.breaks)
        first = made.breaks[0]
        yield (
            f"{formatting.plural(number, 'graph break')}, of which the first at "
            f"{first.where or 'an unknown line'}: {first.reason}"
        )
    if made.recompilations:
        times = formatting.plural(len(made.recompilations), "time")
        yield f"compiled again {times}; a guard that failed: {made.recompilations[0]}"


def section(record: Profile) -> layout.Section:
    """All that is known of the compilation."""
    made = record.compilation
    if made is None:
        return layout.Section("", [])
    lines = [
        f"torch.compile in mode {made.mode} took {units.seconds(made.seconds)} until the first "
        "result. C++ that Inductor had compiled before was not compiled again.",
        *_of_kernels(record),
        *(f"graph break at {one.where or '?'}: {one.reason}" for one in made.breaks),
        *(f"compiled again: {reason}" for reason in made.recompilations),
    ]
    if not made.breaks and not made.recompilations:
        lines.append("No graph break and no recompilation.")
    return layout.Section("Compilation", [layout.Lines(lines)], formats=layout.FULL)


def _of_kernels(record: Profile) -> Iterator[str]:
    made = record.compilation
    if made is None or not record.kernels:
        return
    # A mean is rounded to a tenth of a nanosecond.
    between = round(record.base.mean - kernels_s(record), 10)
    yield (
        f"{formatting.plural(made.kernels or 0, 'kernel')} of "
        f"{formatting.plural(made.graphs, 'graph')} add up to {units.seconds(kernels_s(record))}. "
        f"Between them lie {units.seconds(between)}, in the row between_kernels() (means)."
    )
    if made.attributed is not None:
        yield (
            f"Of the kernels' time, {units.percent(made.attributed, digits=1)} belongs to known "
            "layers and functions."
        )
