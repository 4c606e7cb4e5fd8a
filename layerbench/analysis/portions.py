"""Sums over rows of one type or in one block, as parts of a whole. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Portion:
    """What rows of one type have together, or one block.

    Attributes:
        name: the type; of a block, its type.
        path: of the block; empty for a type.
        amount: of all of them together: seconds, bytes, FLOPs.
        share: of the whole.
        count: of the rows.
    """

    name: str
    path: str
    amount: float
    share: float
    count: int


def by_path(amounts: Iterable[tuple[str, str, float]], whole: float) -> list[Portion]:
    """The blocks that have any, the largest first.

    Args:
        amounts: type, path and amount of each.
        whole: what shares refer to.
    """
    made = [
        Portion(name, path, amount, part_of(amount, whole), 1)
        for name, path, amount in amounts
        if amount > 0
    ]
    return largest_first(made)


def part_of(amount: float, whole: float) -> float:
    """A share; 0 of nothing."""
    return amount / whole if whole else 0.0


def largest_first(portions: Iterable[Portion]) -> list[Portion]:
    """In order of their amounts."""
    return sorted(portions, key=lambda portion: portion.amount, reverse=True)
