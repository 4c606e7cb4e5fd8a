"""How much layers have of something, each alone and together: what all rankings share. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, TypeVar

from layerbench import units
from layerbench.records.view import Sort

_WRITTEN: Mapping[str, Callable[[float], str]] = {
    "flops": lambda value: units.flops(int(value)),
    "params": lambda value: f"{units.count(int(value), short=True)} parameters",
    "memory": units.bytes_,
    "self": units.seconds,
    "time": units.seconds,
}


@dataclass(frozen=True, repr=False)
class Large:
    """A layer, and how much it has of what layers are sorted by.

    Attributes:
        row: of the record.
        of: what they are sorted by.
        value: FLOPs, elements of parameters, bytes, or seconds.
        share: of the sum over all layers; of ``time``, of the model's own.
    """

    row: Any
    of: Sort
    value: float
    share: float

    @property
    def group(self) -> str:
        """What it is summed with."""
        return str(self.row.type)

    def amount(self, sort: Sort) -> tuple[float, float]:  # noqa: ARG002 - it has only one
        """What it is sorted by, and what decides among equals."""
        return self.value, 0.0

    def __repr__(self) -> str:
        name = f"{self.row.path or '(model)'} {self.row.type}"
        return shown(name, self.of, self.value, self.share)


@dataclass(frozen=True, repr=False)
class Portion:
    """What rows of one type have together, or one block, or anything else that has a part.

    Attributes:
        name: the type; of a block, its type.
        path: of the block; empty for a type.
        value: of all of them together: FLOPs, elements of parameters, bytes, or seconds.
        share: of the whole.
        count: of the rows that have any.
        of: what the value is.
    """

    name: str
    path: str
    value: float
    share: float
    count: int = 1
    of: Sort = "self"

    def __repr__(self) -> str:
        return shown(f"{self.name} ({self.count})", self.of, self.value, self.share)


AnyLarge = TypeVar("AnyLarge", bound=Large)


def shown(name: str, of: Sort, value: float, share: float) -> str:
    """The repr of something that has a part."""
    return f"<{name}: {_WRITTEN[of](value)}, {units.percent(share, digits=1)}>"


def most(
    layers: Iterable[AnyLarge], number: int, sort: Sort = "self", type: str | None = None
) -> list[AnyLarge]:
    """The layers that have most.

    Args:
        layers: of a record.
        number: of those that are wanted.
        sort: by what; it decides of a profile's, as others have one amount alone.
        type: of the layers; ``None`` takes all.
    """
    chosen = [layer for layer in layers if type in (None, layer.row.type)]
    return sorted(chosen, key=lambda layer: layer.amount(sort), reverse=True)[:number]


def by_type(layers: Iterable[Large]) -> list[Portion]:
    """The types by what their layers have together, the largest first; they add up to all of it."""
    groups: dict[str, list[Large]] = {}
    for layer in layers:
        groups.setdefault(layer.group, []).append(layer)
    return largest_first(_sum(name, together) for name, together in groups.items())


def _sum(name: str, layers: Sequence[Large]) -> Portion:
    value = fsum(layer.value for layer in layers)
    return Portion(
        name, "", value, fsum(layer.share for layer in layers), len(layers), layers[0].of
    )


def by_path(amounts: Iterable[tuple[str, str, float]], whole: float) -> list[Portion]:
    """The blocks that have any, the largest first.

    Args:
        amounts: type, path and amount of each.
        whole: what shares refer to.
    """
    return largest_first(
        Portion(name, path, amount, part_of(amount, whole))
        for name, path, amount in amounts
        if amount > 0
    )


def part_of(amount: float, whole: float) -> float:
    """A share; 0 of nothing."""
    return amount / whole if whole else 0.0


def largest_first(portions: Iterable[Portion]) -> list[Portion]:
    """In order of what they have."""
    return sorted(portions, key=lambda portion: portion.value, reverse=True)
