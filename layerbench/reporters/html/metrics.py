"""The figures of each row: what they are called, where they come from, and what adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from layerbench import units
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile, Summary
from layerbench.records.training_step import TrainingProfile
from layerbench.reporters.html.rows import PageRow, parents
from layerbench.reporters.html.schema import Metric, Number, Unit

Figure = Callable[[PageRow], Number | None]


def metrics_of(bundle: Bundle, rows: Sequence[PageRow]) -> tuple[Metric, ...]:
    """The figures that at least one row has, times first."""
    return tuple(metric for metric in _metrics(bundle, rows) if any(metric.values))


def _metrics(bundle: Bundle, rows: Sequence[PageRow]) -> Iterator[Metric]:
    if bundle.profile and bundle.profile.layers:
        yield _time(rows, bundle.profile)
    if bundle.training:
        yield from _step_times(rows, bundle.training)
    counted = "counted on shapes alone" if _on_meta(bundle.structure) else "counted in one forward"
    if bundle.structure:
        yield _metric(
            rows,
            ("flops", "FLOPs", "flops"),
            f"{counted}; a multiply-add is two",
            lambda row: row.made_of.flops if row.made_of else None,
            lambda row: row.made_of.self_flops if row.made_of else None,
        )
    yield _metric(
        rows, ("parameters", "Parameters", "count"), "elements, shared ones once", _parameters
    )
    if bundle.structure:
        yield _metric(
            rows,
            ("output", "Output", "bytes"),
            "bytes of the tensors that it returned",
            lambda row: row.made_of.output_bytes if row.made_of else None,
            adds=False,
        )
    if bundle.memory:
        yield from _held(rows, bundle.memory)


def _on_meta(structure: Structure | None) -> bool:
    return structure is not None and structure.how == "meta"


def _parameters(row: PageRow) -> int | None:
    for known in (row.made_of, row.time, row.bytes, row.step):
        if known is not None and known.parameters is not None:
            return known.parameters
    return None


def _time(rows: Sequence[PageRow], profile: Profile) -> Metric:
    number = profile.whole.n
    own = _mean(rows, lambda row: row.time.self_ if row.time else None)
    above = parents(rows)
    functions: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if row.kind == "function" and row.time and row.time.inclusive:
            own[index] = row.time.inclusive.mean
            functions.setdefault(above[index], []).append(index)
    for module, found in functions.items():
        # What a module's own functions account for is shown as theirs, as far as it is there:
        # they were timed in forwards of their own.
        taken = sum(own[index] for index in found)
        fitting = min(1.0, own[module] / taken) if taken else 1.0
        for index in found:
            own[index] *= fitting
        own[module] = max(0.0, own[module] - taken)
    return Metric(
        key="time",
        label="Time",
        unit="seconds",
        how=f"measured on {profile.environment.device.name}: median of {units.count(number)} "
        "forwards; areas by the mean",
        values=_medians(rows, lambda row: row.time.inclusive if row.time else None),
        own=_medians(rows, lambda row: row.time.self_ if row.time else None),
        area=tuple(rounded(value) for value in own),
    )


def _step_times(rows: Sequence[PageRow], training: TrainingProfile) -> Iterator[Metric]:
    how = (
        f"measured on {training.environment.device.name}: median of {units.count(training.step.n)} "
        "training steps"
    )
    for name in ("forward", "backward"):
        inclusive, own = _of_step(name), _of_step(f"{name}_self")
        yield Metric(
            key=name,
            label=name.capitalize(),
            unit="seconds",
            how=how,
            values=_medians(rows, inclusive),
            own=_medians(rows, own),
            area=tuple(rounded(value) for value in _mean(rows, own)),
        )


def _of_step(field: str) -> Callable[[PageRow], Summary | None]:
    def found(row: PageRow) -> Summary | None:
        known: Summary | None = getattr(row.step, field, None)
        return known

    return found


def _held(rows: Sequence[PageRow], memory: MemoryReport | MemoryEstimate) -> Iterator[Metric]:
    how = (
        "tensors of a real run"
        if isinstance(memory, MemoryReport)
        else f"predicted for {memory.device}"
    )
    yield _metric(
        rows,
        ("at_peak", "At the peak", "bytes"),
        f"{how}: alive at the peak, by the module that allocated them",
        lambda row: row.bytes.at_peak if row.bytes else None,
        lambda row: row.bytes.self_at_peak if row.bytes else None,
    )
    yield _metric(
        rows,
        ("kept", "Kept", "bytes"),
        f"{how}: alive when the forward had ended",
        lambda row: row.bytes.kept if row.bytes else None,
        lambda row: row.bytes.self_kept if row.bytes else None,
    )
    yield _metric(
        rows,
        ("live", "Live peak", "bytes"),
        f"{how}: the most bytes alive while it ran",
        lambda row: row.bytes.live_peak if row.bytes else None,
        adds=False,
    )


def _metric(
    rows: Sequence[PageRow],
    named: tuple[str, str, Unit],
    how: str,
    value: Figure,
    own: Figure | None = None,
    *,
    adds: bool = True,
) -> Metric:
    key, label, unit = named
    values = [value(row) for row in rows]
    selfs = [own(row) for row in rows] if own else _without_children(rows, values) if adds else []
    return Metric(
        key=key,
        label=label,
        unit=unit,
        how=how,
        values=tuple(values),
        own=tuple(selfs) if own else (),
        area=tuple(max(0, known or 0) for known in selfs) if adds else (),
    )


def _without_children(
    rows: Sequence[PageRow], values: Sequence[Number | None]
) -> list[Number | None]:
    left = list(values)
    for index, above in enumerate(parents(rows)):
        known, mine = left[above] if above >= 0 else None, values[index]
        if known is not None and mine is not None:
            left[above] = max(0, known - mine)
    return left


def _medians(
    rows: Sequence[PageRow], summary: Callable[[PageRow], Summary | None]
) -> tuple[float | None, ...]:
    found = (summary(row) for row in rows)
    return tuple(None if known is None else rounded(known.median) for known in found)


def _mean(rows: Sequence[PageRow], summary: Callable[[PageRow], Summary | None]) -> list[float]:
    found = (summary(row) for row in rows)
    return [0.0 if known is None else known.mean for known in found]


def rounded(value: float) -> float:
    """With as many digits as anybody looks at: the page is a third shorter for it."""
    return value if isinstance(value, int) else float(f"{value:.6g}")
