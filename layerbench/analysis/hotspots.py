"""Where a forward's time goes: each layer with its time and what bounds it. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Literal

from layerbench.analysis.kernels import own_kernels
from layerbench.analysis.launching import Launching
from layerbench.analysis.portions import Large, Portion, by_path, part_of, shown
from layerbench.analysis.roofline import Bound, bytes_least, element_bytes, under_roof
from layerbench.records.timing import Ceilings, LayerRow, Profile, Summary
from layerbench.records.tree import parent
from layerbench.records.view import Sort

Limit = Bound | Literal["launch"]
"""What a layer meets first: the roof that is lower for it, or the host that launches it."""

BETWEEN = "between layers"
"""In place of a type: what modules that hold others do besides calling them."""


@dataclass(frozen=True, repr=False)
class Hotspot(Large):
    """A layer or function, with what it takes itself and what it does with it.

    Its value is the mean of what it takes itself, seconds. The shares are of the instrumented
    forward, by means.

    Attributes:
        between: whether it is a module that holds others, and this what it does besides.
        time: what it takes itself; ``None`` where it is the rest beside timed functions.
        flops: in one forward; ``None`` where they are unknown.
        bytes_least: that its calls move at least; ``None`` where shapes do not say.
        bound: what it meets first: the host that launches it, else the roof that is lower here;
            ``None`` without ceilings, or where FLOPs are unknown.
        rate: FLOPs a second where arithmetic is the bound, bytes a second where memory is.
        of_roof: ``rate`` over the most that the device does of it.
        on_device: whether its time is the device's alone, without the host's launching.
        host: what it takes itself on the host's clock, where its time is the device's alone.
        kernels: that the device ran for it itself in one forward; ``None`` where nobody saw them.
    """

    row: LayerRow
    between: bool
    time: Summary | None
    flops: int | None = None
    bytes_least: int | None = None
    bound: Limit | None = None
    rate: float | None = None
    of_roof: float | None = None
    on_device: bool = False
    host: Summary | None = None
    kernels: int | None = None

    @property
    def median_s(self) -> float:
        """The median, or the mean where there is no more."""
        return self.value if self.time is None else self.time.median

    @property
    def group(self) -> str:
        """Its type, or that it lies between the layers."""
        return BETWEEN if self.between else self.row.type

    def amount(self, sort: Sort) -> tuple[float, float]:
        """What it is sorted by, and its own time where that is equal."""
        inclusive = self.row.inclusive
        amounts: dict[Sort, float | None] = {
            "self": self.median_s,
            "time": inclusive.median if inclusive else self.median_s,
            "flops": self.flops,
            "params": self.row.own_parameters,
            "memory": self.bytes_least,
        }
        return amounts[sort] or 0, self.median_s

    def __repr__(self) -> str:
        name = f"{self.row.path or '(model)'} {self.row.type}"
        return shown(name, self.of, self.median_s, self.share)


def hotspots(record: Profile) -> list[Hotspot]:
    """All timed layers and functions by the time that they take themselves, slowest first.

    Their shares add up to 1: a module's functions are apart from the rest of its own time.
    """
    whole = record.base.mean
    functions = _functions(record.layers)
    composite = {parent(row.path) for row in record.layers if row.path and row.kind == "module"}
    roofs, device = _Roofs.of(record), _OnDevice.of(record)
    spots = [
        device.bound(
            roofs.over(_hotspot(row, functions.get(row.path, ()), row.path in composite, whole))
        )
        for row in record.layers
        if row.self_ is not None
    ]
    return sorted(spots, key=lambda spot: spot.median_s, reverse=True)


def by_block(record: Profile) -> list[Portion]:
    """The blocks by the time of all that is in them."""
    times = ((row.type, row.path, row.inclusive) for row in record.layers if row.block)
    means = ((type, path, time.mean) for type, path, time in times if time)
    return by_path(means, record.base.mean)


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
    return Hotspot(row, "self", mean, part_of(mean, whole), composite, time)


@dataclass(frozen=True)
class _Roofs:
    """What bounds the layers of a record.

    Attributes:
        ceilings: of the device; ``None`` where nobody measured them.
        size: bytes of an element.
        flops: of the functions, by path.
        elsewhere: of modules, by path, the FLOPs that their functions have.
    """

    ceilings: Ceilings | None
    size: int
    flops: Mapping[str, int]
    elsewhere: Mapping[str, int]

    @classmethod
    def of(cls, record: Profile) -> _Roofs:
        flops = _flops_of_functions(record.layers)
        elsewhere: Counter[str] = Counter()
        for path, number in flops.items():
            elsewhere[parent(path)] += number
        return cls(record.ceilings, element_bytes(record.workload), flops, elsewhere)

    def over(self, spot: Hotspot) -> Hotspot:
        """The hotspot with the roof that is the lower one for it."""
        row, ceilings = spot.row, self.ceilings
        flops = self._flops_of(row)
        moved = None if spot.between else bytes_least(row, self.size)
        spot = replace(spot, flops=flops, bytes_least=moved)
        if ceilings is None or not moved or flops is None or spot.median_s <= 0:
            return spot
        bound, rate, share = under_roof(ceilings, flops, moved, spot.median_s)
        return replace(spot, bound=bound, rate=rate, of_roof=share)

    def _flops_of(self, row: LayerRow) -> int | None:
        """What a layer does itself: each FLOP is one function's or one module's."""
        if row.kind == "function":
            return self.flops.get(row.path)
        return row.self_flops and row.self_flops - self.elsewhere.get(row.path, 0)


# Functions with one of these in their names do arithmetic that counts as FLOPs.
_ARITHMETIC = (
    *("attention", "conv", "linear", "matmul", "einsum", "mm", "dot"),
    *("lstm", "gru", "rnn"),
)


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


@dataclass(frozen=True)
class _OnDevice:
    """What a record with device rounds knows of its layers besides.

    Attributes:
        launching: which of them are launch-bound; ``None`` without device rounds.
        kernels: that each row ran itself, by path; ``None`` where nobody saw them.
    """

    launching: Launching | None
    kernels: Mapping[str, int] | None

    @classmethod
    def of(cls, record: Profile) -> _OnDevice:
        if record.device_rounds is None:
            return cls(None, None)
        return cls(Launching.of(record), own_kernels(record))

    def bound(self, spot: Hotspot) -> Hotspot:
        """The hotspot with its host time and kernels; bound by launching, where it is."""
        if self.launching is None:
            return spot
        kernels = None if self.kernels is None else self.kernels.get(spot.row.path, 0)
        spot = replace(spot, on_device=True, host=spot.row.host_self, kernels=kernels)
        if not self.launching.bounds_own(spot.row):
            return spot
        return replace(spot, bound="launch", rate=None, of_roof=None)
