"""A predicted time beside another predicted or a measured one. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layerbench.analysis.comparison import THRESHOLD, work_of
from layerbench.analysis.differences import text_of
from layerbench.errors import ComparisonError
from layerbench.records.bounds import MOST_NAME, MOST_TEXT
from layerbench.records.bundle import Bundle
from layerbench.records.card import Card
from layerbench.records.comparison import Change, Difference
from layerbench.records.latency_comparison import (
    LatencyChange,
    LatencyComparison,
    LatencySide,
)
from layerbench.records.latency_estimate import LatencyEstimate, TimeInterval
from layerbench.records.memory import Phase
from layerbench.records.rows import ModuleRow
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Workload

# The phases that both a measured and a predicted step have of each layer.
_OF_LAYERS: tuple[Phase, ...] = ("forward", "backward", "recomputation")


@dataclass(frozen=True)
class _Sided:
    """A side, with its rows and their inclusive times by path; of a prediction its card."""

    side: LatencySide
    card: Card | None
    rows: Mapping[str, tuple[ModuleRow, float]]
    notes: tuple[str, ...]


def is_predicted(record: object) -> bool:
    """Whether a record is to be compared here, and not as two measurements are."""
    return isinstance(record, LatencyEstimate) or (
        isinstance(record, Bundle) and record.latency is not None and record.profile is None
    )


def compare_latency(
    baseline: object,
    contender: object,
    *,
    names: tuple[str, str] = ("baseline", "contender"),
    threshold: float = THRESHOLD,
    same_model: bool = False,
) -> LatencyComparison:
    """Compare a prediction with another one, or with what was measured.

    Args:
        baseline, contender: a `LatencyEstimate` each, or one of them a `Profile` of a forward or a
            `TrainingProfile`.
        names, threshold, same_model: as for `layerbench.analysis.comparison.compare`.

    Raises:
        ComparisonError: another model or input, a forward beside a training step, or a record
            without times.
    """
    before, after = (_sided(*one) for one in zip((baseline, contender), names, strict=True))
    _check_comparable(before.side, after.side, same_model=same_model)
    low, ratio, high = (1.0,) * 3 if _are_one(before, after) else _ratio(before.side, after.side)
    shared = [path for path in after.rows if path and path in before.rows]
    return LatencyComparison(
        baseline=before.side,
        contender=after.side,
        threshold=threshold,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        verdict=_verdict(low, high, threshold),
        held=_held(before, after),
        rows=tuple(_row(path, before, after) for path in shared),
        added=tuple(path for path in after.rows if path and path not in before.rows),
        missing=tuple(path for path in before.rows if path and path not in after.rows),
        differences=tuple(_differences(before.side, after.side)),
        notes=tuple(_notes(before, after)),
    )


def _sided(record: object, name: str) -> _Sided:
    held = record
    if isinstance(record, Bundle):
        held = record.profile or record.training or record.latency
    name = name[:MOST_NAME]
    if isinstance(held, LatencyEstimate):
        return _predicted(held, name)
    if isinstance(held, Profile):
        return _forward(held, name)
    if isinstance(held, TrainingProfile):
        return _step(held, name)
    raise ComparisonError(f"{name} holds no times: only times can be compared with a prediction")


def _predicted(record: LatencyEstimate, name: str) -> _Sided:
    side = LatencySide(
        name=name,
        how="predicted",
        device=record.card.title,
        model_type=record.model_type,
        workload=record.workload,
        optimizer=record.optimizer,
        seconds=record.seconds,
        interval=record.interval,
        checked=record.checked,
    )
    rows: dict[str, tuple[ModuleRow, float]] = {}
    for row in record.rows:
        if row.seconds is not None:
            of_layers = math.fsum(row.phases.get(phase, 0.0) for phase in _OF_LAYERS)
            rows[row.path] = (row, of_layers if record.training else row.seconds)
    return _Sided(side, record.card, rows, record.notes)


def _forward(record: Profile, name: str) -> _Sided:
    whole = record.whole
    side = LatencySide(
        name=name,
        how="measured",
        device=record.environment.device.name,
        model_type=record.model_type,
        workload=record.workload,
        seconds=whole.median,
        interval=TimeInterval(low=whole.ci_low, high=whole.ci_high),
    )
    rows = {
        row.path: (_place(row), row.inclusive.median)
        for row in record.layers
        if row.kind == "module" and row.inclusive is not None
    }
    return _Sided(side, None, rows, record.environment.warnings)


def _step(record: TrainingProfile, name: str) -> _Sided:
    step = record.step
    side = LatencySide(
        name=name,
        how="measured",
        device=record.environment.device.name,
        model_type=record.model_type,
        workload=record.workload,
        optimizer=record.optimizer,
        seconds=step.median,
        interval=TimeInterval(low=step.ci_low, high=step.ci_high),
    )
    rows: dict[str, tuple[ModuleRow, float]] = {
        row.path: (row, math.fsum(time.median for time in row.times if time))
        for row in record.rows
        if any(row.times)
    }
    return _Sided(side, None, rows, record.environment.warnings)


def _place(row: object) -> ModuleRow:
    """A row of a profile, without its figures."""
    names = ("path", "type", "depth", "calls", "block", "position")
    return ModuleRow(**{name: getattr(row, name) for name in names})


def _check_comparable(before: LatencySide, after: LatencySide, *, same_model: bool) -> None:
    names = [one.workload.model for one in (before, after)]
    shapes = [one.workload.shape for one in (before, after)]
    if shapes[0] != shapes[1] or (names[0] != names[1] and not same_model):
        works = [work_of(one.workload) for one in (before, after)]
        raise ComparisonError(
            f"{before.name} is of {works[0]} and {after.name} of {works[1]}: only times of the "
            "same model and input can be compared"
        )
    steps = [one.optimizer is not None for one in (before, after)]
    if steps[0] != steps[1]:
        step, forward = (before, after) if steps[0] else (after, before)
        raise ComparisonError(
            f"{step.name} is of a training step and {forward.name} of a forward: predict the same "
            "with --mode"
        )
    if not (before.seconds and after.seconds):
        raise ComparisonError("a time is 0: there is no ratio")


def _are_one(before: _Sided, after: _Sided) -> bool:
    """Whether both are the same prediction, whose errors are then the same, too."""
    facts = [
        (one.card, one.side.workload, one.side.optimizer, one.side.seconds, one.side.interval)
        for one in (before, after)
    ]
    return before.card is not None and facts[0] == facts[1]


def _ratio(before: LatencySide, after: LatencySide) -> tuple[float, float, float]:
    """Contender over baseline, and what it lies between.

    Logarithms of the two sides' errors are added in squares, as those of independent errors are.
    """
    centre = math.log(after.seconds / before.seconds)
    down = math.hypot(_reach(after, "low"), _reach(before, "high"))
    up = math.hypot(_reach(after, "high"), _reach(before, "low"))
    low, ratio, high = (math.exp(each) for each in (centre - down, centre, centre + up))
    return _rounded(low), _rounded(ratio), _rounded(high)


def _reach(side: LatencySide, end: str) -> float:
    bound = getattr(side.interval, end)
    return abs(math.log(bound / side.seconds)) if bound > 0 else math.inf


def _verdict(low: float, high: float, threshold: float) -> Change:
    most = 1 + threshold
    if low > most:
        return "SLOWER"
    if high < 1 / most:
        return "FASTER"
    return "SAME" if low >= 1 / most and high <= most else "UNCLEAR"


def _held(before: _Sided, after: _Sided) -> bool | None:
    """Whether a measured time lies in a prediction's interval, if it is of that card."""
    if before.card is None or after.card is None:
        predicted, measured = (before, after) if before.card else (after, before)
        if predicted.card is not None and predicted.card.is_named(measured.side.device):
            between = predicted.side.interval
            return between.low <= measured.side.seconds <= between.high
    return None


def _row(path: str, before: _Sided, after: _Sided) -> LatencyChange:
    (_, first), (row, second) = before.rows[path], after.rows[path]
    return LatencyChange(
        **{name: getattr(row, name) for name in ModuleRow.model_fields},
        baseline_s=_rounded(first),
        contender_s=_rounded(second),
        ratio=_rounded(second / first) if first > 0 and second > 0 else None,
    )


def _rounded(value: float) -> float:
    """Six digits: a ratio is never known better, and all machines agree on so many."""
    return float(f"{value:.6g}")


def _differences(before: LatencySide, after: LatencySide) -> Iterator[Difference]:
    for name in Workload.model_fields:
        first, second = getattr(before.workload, name), getattr(after.workload, name)
        if first != second:
            yield _difference("workload", name, first, second)
    for name in ("device", "optimizer", "how"):
        first, second = getattr(before, name), getattr(after, name)
        if first != second:
            where = "workload" if name == "optimizer" else "environment"
            yield _difference(where, "times" if name == "how" else name, first, second)


def _difference(where: str, what: str, before: object, after: object) -> Difference:
    texts = {"baseline": text_of(before)[:MOST_TEXT], "contender": text_of(after)[:MOST_TEXT]}
    return Difference.model_validate({"where": where, "what": what, **texts})


def _notes(before: _Sided, after: _Sided) -> Iterator[str]:
    for one, other in ((before, after), (after, before)):
        if one.card is not None and other.card is None and not one.card.is_named(other.side.device):
            yield (
                f"Measured on {other.side.device} and predicted for {one.side.device}: the "
                "difference says nothing about the prediction."
            )
    for name, one in (("baseline", before), ("contender", after)):
        how = "predicted for" if one.side.how == "predicted" else "measured on"
        yield from (f"Of the {name}, {how} {one.side.device}: {note}" for note in one.notes)
