"""How far leaves in the model lie from the same leaves alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from layerbench.records.timing import LayerRow, Profile, Summary

APART = 0.25
"""From this part of the time alone on, a leaf's time in the model differs by much."""

Place = Literal["like hot", "between", "like cold", "above both", "below hot"]


@dataclass(frozen=True)
class Beside:
    """One leaf in the model, beside itself alone.

    Attributes:
        row: of the leaf.
        in_context, hot, cold: seconds in one forward: in the model; alone, at once after itself;
            alone with the caches swept.
    """

    row: LayerRow
    in_context: Summary
    hot: Summary
    cold: Summary

    @property
    def ratio(self) -> float | None:
        """The median in the model over the hot one; ``None`` of one that takes nothing."""
        return self.in_context.median / self.hot.median if self.hot.median > 0 else None

    @property
    def place(self) -> Place:
        """Where the time in the model lies.

        It differs where it is `APART` from the other one, and their intervals do not meet.
        """
        if _is_above(self.hot, self.in_context):
            return "below hot"
        if not _is_above(self.in_context, self.hot):
            return "like hot"
        if _is_above(self.in_context, self.cold):
            return "above both"
        return "between" if _is_above(self.cold, self.in_context) else "like cold"


def _is_above(one: Summary, other: Summary) -> bool:
    return one.median > (1 + APART) * other.median and one.ci_low > other.ci_high


def beside(record: Profile) -> list[Beside]:
    """The leaves that were run alone, in the order of the rows."""
    return [
        Beside(row, row.inclusive, row.isolated_hot, row.isolated_cold)
        for row in record.layers
        if row.inclusive and row.isolated_hot and row.isolated_cold
    ]


@dataclass(frozen=True)
class Sums:
    """Medians of all leaves that were run alone, added up, in seconds."""

    in_context: float
    hot: float
    cold: float


def sums(leaves: Sequence[Beside]) -> Sums:
    """What the leaves take together in each way."""
    return Sums(
        fsum(leaf.in_context.median for leaf in leaves),
        fsum(leaf.hot.median for leaf in leaves),
        fsum(leaf.cold.median for leaf in leaves),
    )
