"""The largest layers of other records than profiles: FLOPs, parameters, bytes, time. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from layerbench import units
from layerbench.errors import UsageError
from layerbench.records.memory import MemoryEstimate, MemoryReport, MemoryRow
from layerbench.records.rows import ModuleRow
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.training_step import TrainingProfile, TrainingRow
from layerbench.records.view import Sort
from layerbench.records.workload import Frozen

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

    row: ModuleRow
    of: Sort
    value: float
    share: float

    def __repr__(self) -> str:
        return f"<{named(self.row)}: {_amount(self.of, self.value, self.share)}>"


@dataclass(frozen=True, repr=False)
class Together:
    """What the layers of one type have together; fields as in `Large`.

    Attributes:
        name: the type.
        count: of its layers that have any of it.
    """

    name: str
    of: Sort
    value: float
    share: float
    count: int

    def __repr__(self) -> str:
        return f"<{self.name} ({self.count}): {_amount(self.of, self.value, self.share)}>"


def named(row: Any) -> str:  # noqa: ANN401 - a row with path and type
    """A row by its path and type."""
    return f"{row.path or '(model)'} {row.type}"


def _amount(of: Sort, value: float, share: float) -> str:
    return f"{_WRITTEN[of](value)}, {units.percent(share, digits=1)}"


def largest(
    record: Frozen, number: int, sort: Sort | None = None, type: str | None = None
) -> list[Large]:
    """The layers that have most.

    Args:
        record: with rows of layers, no profile.
        number: of layers.
        sort: by what; ``None`` for what the record is about. Memory is what a layer
            allocated itself and holds at the peak; of a training step the bytes it keeps, with
            those below it; of a structure its output.
        type: of the layers; ``None`` takes all.

    Raises:
        UsageError: the record has no layers, or does not know what they shall be sorted by.
    """
    every = [large for large in _all(record, sort) if type in (None, large.row.type)]
    return sorted(every, key=lambda large: large.value, reverse=True)[:number]


def usual(record: Frozen, sort: Sort) -> Sort:
    """What to sort by: as wanted, or what the record is about where it does not know that.

    Raises:
        UsageError: the record has no layers.
    """
    _, values = _known(record)
    return sort if sort in values else next(iter(values))


def together(record: Frozen, sort: Sort | None = None) -> list[Together]:
    """The types by what their layers have together; they add up to all of it.

    Args:
        record: as of `largest`.
        sort: of what; ``None`` for what the record is about.

    Raises:
        UsageError: the record has no layers, or does not know that.
    """
    groups: dict[str, list[Large]] = {}
    for large in _all(record, sort):
        groups.setdefault(large.row.type, []).append(large)
    made = [_sum(name, larges) for name, larges in groups.items()]
    return sorted(made, key=lambda group: group.value, reverse=True)


def _sum(name: str, larges: Sequence[Large]) -> Together:
    return Together(
        name,
        larges[0].of,
        sum(large.value for large in larges),
        sum(large.share for large in larges),
        len(larges),
    )


def _all(record: Frozen, sort: Sort | None) -> list[Large]:
    """Every layer that has any."""
    rows, values = _known(record)
    chosen = sort or next(iter(values))
    if chosen not in values:
        kind = getattr(record, "record", "such")
        raise UsageError(f"a {kind} record sorts by {', '.join(values)}, not by {chosen}")
    value_of, inclusive = values[chosen]
    amounts = [(row, value_of(row)) for row in rows]
    counted = [(row, float(value)) for row, value in amounts if value]
    whole = _whole(counted, inclusive)
    return [Large(row, chosen, value, value / whole) for row, value in counted]


def _whole(counted: Sequence[tuple[ModuleRow, float]], inclusive: bool) -> float:
    """Of values that hold those below them, the model's own; else their sum."""
    if inclusive:
        return max((value for _, value in counted), default=0.0)
    return sum(value for _, value in counted)


_Value = Callable[[Any], float | None]
# By what a kind is sorted, the usual first; and whether a layer's value holds those below it.
_STRUCTURE: dict[Sort, tuple[_Value, bool]] = {
    "flops": (lambda row: row.self_flops, False),
    "params": (lambda row: row.own_parameters, False),
    "memory": (lambda row: row.output_bytes, False),
}
_MEMORY: dict[Sort, tuple[_Value, bool]] = {
    "memory": (lambda row: row.self_at_peak, False),
    "params": (lambda row: row.parameters, True),
}
_TRAINING: dict[Sort, tuple[_Value, bool]] = {
    "self": (lambda row: _both(row.forward_self, row.backward_self), False),
    "time": (lambda row: _both(row.forward, row.backward), True),
    "params": (lambda row: row.parameters, True),
    "memory": (lambda row: row.kept, True),
}


def _both(*summaries: Any) -> float:  # noqa: ANN401 - a `Summary` or None
    return fsum(summary.mean for summary in summaries if summary is not None)


def _known(
    record: Frozen,
) -> tuple[
    Sequence[StructureRow] | Sequence[MemoryRow] | Sequence[TrainingRow],
    dict[Sort, tuple[_Value, bool]],
]:
    match record:
        case Structure():
            return record.rows, _STRUCTURE
        case MemoryReport() | MemoryEstimate():
            return record.rows, _MEMORY
        case TrainingProfile():
            return record.rows, _TRAINING
    kind = getattr(record, "record", type(record).__name__)
    raise UsageError(f"a {kind} record has no rows of layers")
