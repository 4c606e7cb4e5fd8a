"""Where a forward's time goes: the slowest layers, types and blocks. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from layerbench import units
from layerbench.analysis.portions import Portion
from layerbench.analysis.roofline import BYTES, Bound, bytes_least, ridge
from layerbench.records.timing import Ceilings, LayerRow, Profile, Summary
from layerbench.records.tree import parent
from layerbench.records.view import Sort

BETWEEN = "between layers"
"""In place of a type: what modules that hold others do besides calling them."""


@dataclass(frozen=True, repr=False)
class Hotspot:
    """A layer or function, with what it takes itself and what it does with it.

    Attributes:
        row: of the record.
        between: whether it is a module that holds others, and this what it does besides.
        time: what it takes itself; ``None`` where it is the rest beside timed functions.
        mean_s: its mean, seconds.
        share: of the instrumented forward, by means.
        flops: in one forward; ``None`` where they are unknown.
        bytes_least: that its calls move at least; ``None`` where shapes do not say.
        bound: the roof that is lower here; ``None`` without ceilings, or where FLOPs are unknown.
        rate: FLOPs a second where arithmetic is the bound, else bytes a second.
        of_roof: ``rate`` over the most that the device does of it.
    """

    row: LayerRow
    between: bool
    time: Summary | None
    mean_s: float
    share: float
    flops: int | None = None
    bytes_least: int | None = None
    bound: Bound | None = None
    rate: float | None = None
    of_roof: float | None = None

    @property
    def median_s(self) -> float:
        """The median, or the mean where there is no more."""
        return self.mean_s if self.time is None else self.time.median

    def __repr__(self) -> str:
        name = f"{self.row.path or '(model)'} {self.row.type}"
        return f"<{name}: {_amount(self.median_s, self.share)}>"


class Group(Portion):
    """Layers of one type, or what runs in one block; its amount is a time."""

    @property
    def mean_s(self) -> float:
        """Of all of them together, seconds."""
        return self.amount

    def __repr__(self) -> str:
        name = f"{self.path} {self.name}" if self.path else f"{self.name} ({self.count})"
        return f"<{name}: {_amount(self.mean_s, self.share)}>"


def _amount(seconds: float, share: float) -> str:
    return f"{units.seconds(seconds)}, {units.percent(share, digits=1)}"


def whole_s(record: Profile) -> float:
    """The mean that shares refer to: the instrumented whole, which the layers add up to."""
    top = next((row for row in record.layers if row.depth == 0 and row.inclusive), None)
    return top.inclusive.mean if top and top.inclusive else record.whole.mean


def hotspots(record: Profile) -> list[Hotspot]:
    """All timed layers and functions by the time that they take themselves, slowest first.

    Their shares add up to 1: a module's functions are apart from the rest of its own time.
    """
    whole = whole_s(record)
    functions = _functions(record.layers)
    composite = {parent(row.path) for row in record.layers if row.path and row.kind == "module"}
    roofs = _Roofs.of(record)
    spots = [
        roofs.over(_hotspot(row, functions.get(row.path, ()), row.path in composite, whole))
        for row in record.layers
        if row.self_ is not None
    ]
    return sorted(spots, key=lambda spot: spot.median_s, reverse=True)


def top(
    record: Profile, number: int, sort: Sort = "self", type: str | None = None
) -> list[Hotspot]:
    """The slowest or largest layers.

    Args:
        record: rows of layers.
        number: of layers.
        sort: by what: ``self`` by their own time, ``time`` by that with all that is in them,
            ``flops``, ``params``. What a profile does not know is sorted by the own time.
        type: of the layers; ``None`` takes all.
    """
    return top_of(hotspots(record), number, sort, type)


def top_of(
    spots: Iterable[Hotspot], number: int, sort: Sort = "self", type: str | None = None
) -> list[Hotspot]:
    """The same of hotspots that are there already."""
    spots = [spot for spot in spots if type in (None, spot.row.type)]
    return sorted(spots, key=_KEYS[sort], reverse=True)[:number]


def by_type(record: Profile) -> list[Group]:
    """The types by what their layers take themselves; they add up to the whole."""
    return types_of(hotspots(record))


def types_of(spots: Iterable[Hotspot]) -> list[Group]:
    """The same of hotspots that are there already."""
    groups: dict[str, list[Hotspot]] = {}
    for spot in spots:
        groups.setdefault(BETWEEN if spot.between else spot.row.type, []).append(spot)
    made = [_group(name, "", spots) for name, spots in groups.items()]
    return sorted(made, key=lambda group: group.mean_s, reverse=True)


def by_block(record: Profile) -> list[Group]:
    """The blocks by the time of all that is in them."""
    whole = whole_s(record)
    blocks = [(row, row.inclusive) for row in record.layers if row.block and row.inclusive]
    made = [
        Group(row.type, row.path, time.mean, time.mean / whole if whole else 0, 1)
        for row, time in blocks
    ]
    return sorted(made, key=lambda group: group.mean_s, reverse=True)


def _group(name: str, path: str, spots: Sequence[Hotspot]) -> Group:
    return Group(
        name,
        path,
        fsum(spot.mean_s for spot in spots),
        fsum(spot.share for spot in spots),
        len(spots),
    )


def _functions(rows: Iterable[LayerRow]) -> dict[str, list[LayerRow]]:
    """The timed functions by the path of the module that runs them."""
    functions: dict[str, list[LayerRow]] = {}
    for row in rows:
        if row.kind == "function" and row.inclusive:
            functions.setdefault(parent(row.path), []).append(row)
    return functions


def _hotspot(
    row: LayerRow, functions: Sequence[LayerRow], composite: bool, whole: float
) -> Hotspot:
    time = row.self_
    mean = time.mean if time else 0.0
    if functions:
        # A module's own summary holds its functions: of the rest there is a mean alone.
        mean = max(mean - fsum(f.inclusive.mean for f in functions if f.inclusive), 0.0)
        time = None
    return Hotspot(row, composite, time, mean, mean / whole if whole else 0)


@dataclass(frozen=True)
class _Roofs:
    """What bounds the layers of a record.

    Attributes:
        ceilings: of the device; ``None`` where nobody measured them.
        size: bytes of an element.
        flops: of the functions, by path.
    """

    ceilings: Ceilings | None
    size: int
    flops: Mapping[str, int]

    @classmethod
    def of(cls, record: Profile) -> _Roofs:
        size = BYTES.get(record.workload.formats[0], BYTES["float32"])
        return cls(record.ceilings, size, _flops_of_functions(record.layers))

    def over(self, spot: Hotspot) -> Hotspot:
        """The hotspot with the roof that is the lower one for it."""
        row, ceilings = spot.row, self.ceilings
        function = row.kind == "function"
        flops = self.flops.get(row.path) if function else row.self_flops
        moved = None if spot.between else bytes_least(row, self.size)
        spot = replace(spot, flops=flops, bytes_least=moved)
        if ceilings is None or not moved or flops is None or spot.median_s <= 0:
            return spot
        computes = flops / moved >= ridge(ceilings)
        bound: Bound = "compute" if computes else "memory"
        rate = (flops if computes else moved) / spot.median_s
        most = ceilings.flops_per_s if computes else ceilings.bytes_per_s
        return replace(spot, bound=bound, rate=rate, of_roof=rate / most)


# Functions with one of these in their names do arithmetic that counts as FLOPs.
_ARITHMETIC = ("attention", "conv", "linear", "matmul", "einsum", "mm", "bilinear", "dot")


def _flops_of_functions(rows: Iterable[LayerRow]) -> dict[str, int]:
    """FLOPs of the functions whose share of their module's is plain, by path.

    FLOPs are counted by module. Where one function alone can do them, it did all; where several
    can, nobody knows which.
    """
    modules = {row.path: row for row in rows if row.kind == "module"}
    flops: dict[str, int] = {}
    for path, functions in _functions(rows).items():
        total = modules[path].self_flops if path in modules else None
        able = [row.path for row in functions if any(name in row.type for name in _ARITHMETIC)]
        if total is None or (total and len(able) != 1):
            continue
        flops |= {row.path: total if row.path in able else 0 for row in functions}
    return flops


def _inclusive_s(spot: Hotspot) -> float:
    return spot.row.inclusive.median if spot.row.inclusive else spot.median_s


_KEYS: dict[Sort, Callable[[Hotspot], tuple[float, float]]] = {
    "self": lambda spot: (spot.median_s, 0.0),
    "time": lambda spot: (_inclusive_s(spot), 0.0),
    "flops": lambda spot: (spot.flops or 0, spot.median_s),
    "params": lambda spot: (spot.row.own_parameters or 0, spot.median_s),
    "memory": lambda spot: (spot.bytes_least or 0, spot.median_s),
}
