"""Rows that take next to nothing, folded into one."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench.records.timing import LayerRow, Profile
from layerbench.records.tree import parent

# Of the whole, what a row of the tree takes at least to stand alone.
LEAST_SHARE = 0.005


def is_trifle(row: LayerRow, whole: float, least: float = LEAST_SHARE) -> bool:
    """Whether a row with all that is in it takes next to nothing, and nothing is said of it.

    Args:
        row: of a profile.
        whole: time of the whole, seconds.
        least: the share of it from where on a row is none.
    """
    return row.inclusive is not None and not row.note and row.inclusive.mean < least * whole


def trifles_together(rows: Sequence[LayerRow], record: Profile) -> list[list[LayerRow]]:
    """The rows one by one, but those of neighbouring siblings that are trifles together.

    Args:
        rows: in tree order; what is in a trifle goes with it.
        record: that they are of.
    """
    whole = record.base.mean
    runs: list[list[LayerRow]] = []
    folded: LayerRow | None = None  # the first of the siblings that are folded now
    inside: str | None = None  # the path of the trifle whose rows follow
    for row in rows:
        within = inside is not None and row.path.startswith(f"{inside}.")
        if folded is not None and (within or (_siblings(row, folded) and is_trifle(row, whole))):
            runs[-1].append(row)
        else:
            folded = row if is_trifle(row, whole) else None
            runs.append([row])
        if not within:
            inside = row.path if is_trifle(row, whole) else None
    return runs


def _siblings(row: LayerRow, other: LayerRow) -> bool:
    return row.depth == other.depth and parent(row.path) == parent(other.path)
