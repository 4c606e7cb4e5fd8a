"""One representative forward of a profile, laid out in time: what traces are drawn from.

A record holds no single forward but each row's distribution. Means add up (the mean of a module
is the sum of its children's means and its own), so the forward drawn is the one in which every
row takes its mean, children in order of execution, what a module does itself at its end. A module
that several parents call stands below the first, with all its calls, cut off at that parent's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from layerbench.errors import UsageError
from layerbench.records.timing import LayerRow, Profile, Summary
from layerbench.records.training_step import TrainingRow

Row = TypeVar("Row", LayerRow, TrainingRow)


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
    return [
        Span(record.layers[index], start_s, end_s)
        for index, start_s, end_s in laid_out(
            record.layers, lambda row: row.inclusive, 0.0, record.layers[0].inclusive.mean
        )
    ]


def laid_out(
    rows: Sequence[Row],
    time_of: Callable[[Row], Summary | None],
    start_s: float,
    end_s: float,
    *,
    backwards: bool = False,
) -> Iterator[tuple[int, float, float]]:
    """The rows that have a time, one after the other within the row that holds them.

    Args:
        rows: in tree order, the whole first.
        time_of: what a row takes.
        start_s, end_s: of the whole; nothing where that has no time.
        backwards: whether children stand in the reverse order.

    Yields:
        the row's number, its start and its end; parents before children.
    """
    waiting = [(0, start_s, end_s)] if rows and time_of(rows[0]) is not None else []
    while waiting:
        index, at, whole_end_s = waiting.pop()
        yield index, at, whole_end_s
        below = []
        children = list(_children(rows, index, time_of))
        for child in reversed(children) if backwards else children:
            times = time_of(rows[child])
            assert times is not None
            until = min(at + times.mean, whole_end_s)
            below.append((child, at, until))
            at = until
        waiting += reversed(below)


def _children(
    rows: Sequence[Row], index: int, time_of: Callable[[Row], Summary | None]
) -> Iterator[int]:
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
        below = row.depth if time_of(row) is not None else None
        if time_of(row) is not None:
            yield child


def label(row: LayerRow) -> str:
    """A span's label: the type and the path."""
    if row.kind == "function":
        return f"{row.type}()"
    return f"{row.type} {row.path}" if row.path else row.type
