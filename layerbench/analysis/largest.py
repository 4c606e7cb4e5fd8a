"""The layers of any record that has rows of layers, with what each has. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum
from typing import Any

from layerbench.analysis.hotspots import hotspots
from layerbench.analysis.portions import Large, most, part_of
from layerbench.analysis.trace_places import phase_of
from layerbench.errors import UsageError
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.rows import ModuleRow
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.trace_profile import TraceProfile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.view import Sort, View
from layerbench.records.workload import Frozen


def largest(record: Frozen, view: View) -> list[Large]:
    """The layers of a first screen: by what is wanted, or by what the record is about.

    Of a trace these are its modules and its user's ranges: the step itself and what PyTorch marks
    have their places among the phases. There are none where most of it has no such name.

    Args:
        record: with rows of layers; where it does not know what is wanted, that is left out.
        view: what to sort by, how many, and of which type.

    Raises:
        UsageError: the record has no layers.
    """
    sort = view.sort if view.sort in _known(record) else None
    every = layers(record, sort)
    if isinstance(record, TraceProfile) and view.type is None:
        every = _named(every)
    return most(every, view.top, view.sort, view.type)


def _named(every: Sequence[Large]) -> list[Large]:
    """Those of a trace that have a name: none of ranges alone in which less runs than outside."""
    named = [one for one in every if one.row.path and phase_of(one.row.name) is None]
    has_modules = any(one.row.kind == "module" for one in named)
    rest = fsum(one.value for one in every) - fsum(one.value for one in named)
    return named if has_modules or fsum(one.value for one in named) >= rest else []


def sorts_of(record: Frozen) -> tuple[Sort, ...]:
    """What the layers of a record other than a profile can be sorted by, the usual first.

    Raises:
        UsageError: the record has no layers.
    """
    return tuple(_known(record))


def layers(record: Frozen, sort: Sort | None = None) -> Sequence[Large]:
    """Every layer that has any.

    Args:
        record: with rows of layers.
        sort: of what; ``None`` for what the record is about. Of a profile it is always time. Memory
            is what a layer allocated itself and holds at the peak; of a training step the bytes it
            keeps, with those below it; of a structure its output.

    Raises:
        UsageError: the record has no layers, or does not know that.
    """
    if isinstance(record, Profile):
        if not record.layers:
            raise UsageError("only the whole model was timed: take granularity 'layers'")
        return hotspots(record)
    values = _known(record)
    chosen = sort or next(iter(values))
    if chosen not in values:
        kind = getattr(record, "record", "such")
        raise UsageError(f"a {kind} record sorts by {', '.join(values)}, not by {chosen}")
    value_of, inclusive = values[chosen]
    rows: Sequence[ModuleRow] = record.rows  # type: ignore[attr-defined]  # those that `_known` has
    counted = [(row, float(value)) for row in rows if (value := value_of(row))]
    amounts = [value for _, value in counted]
    whole = max(amounts, default=0.0) if inclusive else fsum(amounts)
    return [Large(row, chosen, value, part_of(value, whole)) for row, value in counted]


def _both(*summaries: Any) -> float:  # noqa: ANN401 - a `Summary` or None
    return fsum(summary.mean for summary in summaries if summary is not None)


# How much a row has, and whether that holds what those below it have.
_Value = tuple[Callable[[Any], float | None], bool]
# By what a kind is sorted, the usual first.
_STRUCTURE: dict[Sort, _Value] = {
    "flops": (lambda row: row.self_flops, False),
    "params": (lambda row: row.own_parameters, False),
    "memory": (lambda row: row.output_bytes, False),
}
_MEMORY: dict[Sort, _Value] = {
    "memory": (lambda row: row.self_at_peak, False),
    "params": (lambda row: row.parameters, True),
}
_TRAINING: dict[Sort, _Value] = {
    "self": (lambda row: _both(*row.own_times), False),
    "time": (lambda row: _both(*row.times), True),
    "params": (lambda row: row.parameters, True),
    "memory": (lambda row: row.kept, True),
}
_LATENCY: dict[Sort, _Value] = {
    "self": (lambda row: row.own_seconds, False),
    "time": (lambda row: row.seconds, True),
    "flops": (lambda row: row.own_flops, False),
    "params": (lambda row: row.parameters, True),
    "memory": (lambda row: row.own_bytes, False),
}
_TRACE: dict[Sort, _Value] = {
    "self": (lambda row: _both(*row.own_times), False),
    "time": (lambda row: _both(*row.times), True),
}
_KINDS: dict[type[Frozen], dict[Sort, _Value]] = {
    Structure: _STRUCTURE,
    MemoryReport: _MEMORY,
    MemoryEstimate: _MEMORY,
    TrainingProfile: _TRAINING,
    LatencyEstimate: _LATENCY,
    TraceProfile: _TRACE,
}


def _known(record: Frozen) -> dict[Sort, _Value]:
    """What a record's layers can be sorted by."""
    if type(record) in _KINDS:
        return _KINDS[type(record)]
    kind = getattr(record, "record", type(record).__name__)
    raise UsageError(f"a {kind} record has no rows of layers")
