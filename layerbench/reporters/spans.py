"""One representative forward of a profile, laid out in time: what traces are drawn from.

A record holds no single forward but each row's distribution. Means add up (the mean of a module
is the sum of its children's means and its own), so the forward drawn is the one in which every
row takes its mean, children in order of execution, what a module does itself at its end. A module
that several parents call stands below the first, with all its calls, cut off at that parent's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerbench.errors import UsageError
from layerbench.records.timing import LayerRow, Profile


@dataclass(frozen=True)
class Span:
    """One row's stretch of the forward, in seconds from its start."""

    row: LayerRow
    start_s: float
    end_s: float


def spans(record: Profile) -> list[Span]:
    """The spans in order of their start, parents before children; they nest without overlap.

    Raises:
        UsageError: a record without layers.
    """
    if not record.layers or record.layers[0].inclusive is None:
        raise UsageError(
            "a trace shows layers and this record holds none: take the one under layers/, or "
            "measure without --granularity whole"
        )
    return list(_laid_out(record.layers, record.layers[0].inclusive.mean))


def _laid_out(rows: Sequence[LayerRow], whole_s: float) -> Iterator[Span]:
    waiting = [(0, 0.0, whole_s)]
    while waiting:
        index, start_s, end_s = waiting.pop()
        yield Span(rows[index], start_s, end_s)
        at = start_s
        below = []
        for child in _children(rows, index):
            times = rows[child].inclusive
            assert times is not None
            until = min(at + times.mean, end_s)
            below.append((child, at, until))
            at = until
        waiting += reversed(below)


def _children(rows: Sequence[LayerRow], index: int) -> Iterator[int]:
    """The timed rows below a row with no timed row between.

    Rows are in tree order: a row's descendants follow it. A container that is never called itself
    (`torch.nn.ModuleList`) has no time, and what it holds is its parent's.
    """
    below = None
    for child in range(index + 1, len(rows)):
        row = rows[child]
        if row.depth <= rows[index].depth:
            return
        if below is not None and row.depth > below:
            continue
        below = row.depth if row.inclusive is not None else None
        if row.inclusive is not None:
            yield child


def label(row: LayerRow) -> str:
    """A span's label: the type and the path."""
    if row.kind == "function":
        return f"{row.type}()"
    return f"{row.type} {row.path}" if row.path else row.type
