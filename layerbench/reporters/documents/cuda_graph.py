"""What is told of a forward that was captured as a CUDA graph: its replay beside the forward."""

from __future__ import annotations

from layerbench import units
from layerbench.records.timing import Profile
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout


def answer(record: Profile) -> str:
    """Behind the answer: what the graph has brought; empty for a forward without one."""
    beside = record.cuda_graph
    if beside is None:
        return ""
    ratio = beside.eager.median / record.whole.median if record.whole.median else None
    times = "" if ratio is None else f", {units.ratio(ratio)} times as long"
    took = units.seconds(beside.eager.median, formatting.half_width(beside.eager))
    return f"That is a CUDA graph's replay. Without the graph the forward takes {took}{times}."


def section(record: Profile) -> layout.Section:
    """Both on both clocks."""
    beside = record.cuda_graph
    if beside is None:
        return layout.Section("", [])
    both = [
        ("replay", record.whole, record.whole_host),
        ("without the graph", beside.eager, beside.eager_host),
    ]
    rows = [
        {
            "whole, untouched": name,
            "median ms": formatting.ms(time, "median"),
            "±": formatting.relative_half_width(time),
            "host ms": formatting.ms(host, "median"),
            "verdict": time.verdict,
        }
        for name, time, host in both
    ]
    kernels = record.layers[0].kernels if record.layers else None
    what = (
        f"A replay runs {formatting.plural(kernels, 'kernel')}. The host does nothing for a layer."
        if kernels is not None
        else "Both take turns. A replay runs no code of the model."
    )
    return layout.table("CUDA graph", rows, "l.rrl", layout.Text(what, indented=False))
