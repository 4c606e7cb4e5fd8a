"""Rows that take next to nothing, folded into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerbench import units
from layerbench.analysis.portions import part_of
from layerbench.records.timing import LayerRow
from layerbench.records.tree import parent
from layerbench.records.view import View
from layerbench.reporters import formatting

# Of the whole, what a row of a tree of times takes at least to stand alone.
LEAST_SHARE = 0.005
# The same where the rows of a report say more than how much they take.
LEAST_OF_MORE = 0.001


def is_trifle(row: LayerRow, whole: float, least: float = LEAST_SHARE) -> bool:
    """Whether a row with all that is in it takes next to nothing, and nothing is said of it.

    Args:
        row: of a profile.
        whole: time of the whole, seconds.
        least: the share of it from where on a row is none.
    """
    return row.inclusive is not None and not row.note and row.inclusive.mean < least * whole


def in_runs(
    rows: Sequence[formatting.AnyRow],
    view: View,
    amount: Callable[[formatting.AnyRow], float | None],
    whole: float,
    least: float,
) -> list[list[formatting.AnyRow]]:
    """The rows one by one, but those of neighbouring siblings that are trifles together.

    Args:
        rows: in tree order; what is in a trifle goes with it.
        view: whether rows are folded. Those of one type are no neighbours, and stay.
        amount: what a row takes, with all that is in it; ``None`` for one that has a row anyway.
        whole: what all take together.
        least: the share of it from where on a row is no trifle.
    """
    if not view.folded or view.type is not None:
        return [[row] for row in rows]

    def is_small(row: formatting.AnyRow) -> bool:
        taken = amount(row)
        said = getattr(row, "note", "")
        return taken is not None and not said and part_of(taken, whole) < least

    runs: list[list[formatting.AnyRow]] = []
    folded: formatting.AnyRow | None = None  # the first of the siblings that are folded now
    inside: str | None = None  # the path of the trifle whose rows follow
    for row in rows:
        within = inside is not None and row.path.startswith(f"{inside}.")
        small = is_small(row)
        if folded is not None and (within or (_siblings(row, folded) and small)):
            runs[-1].append(row)
        else:
            folded = row if small else None
            runs.append([row])
        if not within:
            inside = row.path if small else None
    return runs


def label(rows: Sequence[formatting.AnyRow], least: float) -> str:
    """The name of a row that stands for several, as far in as they are."""
    under = f"{formatting.plural(len(rows), 'row')} under {units.percent(least, digits=1)} each"
    return "  " * rows[0].depth + under


def outer(rows: Sequence[formatting.AnyRow]) -> list[formatting.AnyRow]:
    """Those of a run that are in none of the others, so that sums count nothing twice."""
    return [row for row in rows if row.depth == rows[0].depth]


def _siblings(row: formatting.AnyRow, other: formatting.AnyRow) -> bool:
    return row.depth == other.depth and parent(row.path) == parent(other.path)
