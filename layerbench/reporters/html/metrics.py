"""The figures of each row: what they are called, where they come from, and what adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum

from layerbench import units
from layerbench.analysis.energy import bounds
from layerbench.analysis.launching import Timed
from layerbench.records.bundle import Bundle
from layerbench.records.energy import Energy
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile, Summary
from layerbench.records.training_step import TrainingProfile
from layerbench.reporters.html.rows import PageRow, counted, figure, parents
from layerbench.reporters.html.schema import Interval, Metric, Number, Unit

Figure = Callable[[PageRow], Number | None]


def metrics_of(bundle: Bundle, rows: Sequence[PageRow]) -> tuple[Metric, ...]:
    """The figures that at least one row has, times first."""
    return tuple(metric for metric in _metrics(bundle, rows) if any(metric.values))


def _metrics(bundle: Bundle, rows: Sequence[PageRow]) -> Iterator[Metric]:
    if bundle.profile and bundle.profile.layers:
        yield _time(rows, bundle.profile)
        if bundle.profile.device_rounds is not None:
            yield from _beside_the_device(rows)
        yield from _alone(rows)
        if bundle.profile.energy is not None:
            yield _energy(rows, bundle.profile.energy, bundle.profile.base.mean)
    if bundle.training:
        yield from _step_times(rows, bundle.training)
        if bundle.training.device_rounds is not None:
            yield from _beside_a_step(rows, " of a step" if bundle.profile else "")
    if bundle.latency:
        yield from _predicted(rows, bundle.latency)
    how = "counted on shapes alone" if _on_meta(bundle.structure) else "counted in one forward"
    yield _metric(
        rows,
        ("flops", "FLOPs", "flops"),
        f"{how}; a multiply-add is two",
        counted("flops"),
        counted("self_flops"),
    )
    yield _of_parameters(rows)
    if bundle.structure:
        yield _metric(
            rows,
            ("output", "Output", "bytes"),
            "bytes of the tensors that it returned",
            figure("made_of", "output_bytes"),
            adds=False,
        )
    if bundle.memory:
        yield from _held(rows, bundle.memory)


def _on_meta(structure: Structure | None) -> bool:
    return structure is not None and structure.how == "meta"


def _of_parameters(rows: Sequence[PageRow]) -> Metric:
    """Parameters, and those of a module's own where a record has them.

    Own ones do not add up where modules share some, so areas are by what is below a row.
    """
    made = _metric(
        rows, ("parameters", "Parameters", "count"), "elements, shared ones once", _parameters
    )
    own = tuple(map(counted("own_parameters"), rows))
    return made.model_copy(update={"own": own}) if any(own) else made


_COUNTED = ("made_of", "time", "bytes", "step", "predicted")


def _parameters(row: PageRow) -> int | None:
    parameters = (figure(part, "parameters")(row) for part in _COUNTED)
    return next((number for number in parameters if number is not None), None)


def _time(rows: Sequence[PageRow], profile: Profile) -> Metric:
    rounds = profile.device_rounds
    number = profile.whole.n if rounds is None or rounds.span is None else rounds.span.n
    own = _mean(rows, figure("time", "self_"))
    above = parents(rows)
    functions: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if row.kind == "function" and row.time and row.time.inclusive:
            own[index] = row.time.inclusive.mean
            functions.setdefault(above[index], []).append(index)
    for module, run in functions.items():
        # What a module's own functions account for is shown as theirs, as far as it is there:
        # they were timed in forwards of their own.
        theirs = sum(own[index] for index in run)
        fitting = min(1.0, own[module] / theirs) if theirs else 1.0
        for index in run:
            own[index] *= fitting
        own[module] = max(0.0, own[module] - theirs)
    return Metric(
        key="time",
        label="Time",
        unit="seconds",
        how=f"{_where(profile)}: median of {units.count(number)} forwards; areas by the mean",
        values=_medians(rows, figure("time", "inclusive")),
        own=_medians(rows, figure("time", "self_")),
        area=tuple(rounded(value) for value in own),
    )


def _where(profile: Timed) -> str:
    name = profile.environment.device.name
    return f"time of the device, {name}" if profile.device_rounds else f"measured on {name}"


def _beside_the_device(rows: Sequence[PageRow]) -> Iterator[Metric]:
    """What launching a row takes, and how many kernels that launches."""
    inclusive, own = figure("time", "host_inclusive"), figure("time", "host_self")
    yield Metric(
        key="host",
        label="Host time",
        unit="seconds",
        how="on the host's clock, in rounds without an event in the device's queue: median",
        values=_medians(rows, inclusive),
        own=_medians(rows, own),
        area=tuple(rounded(value) for value in _mean(rows, own)),
    )
    yield _metric(
        rows,
        ("kernels", "Device kernels", "count"),
        "kernels that the device ran in one forward",
        figure("time", "kernels"),
    )


def _alone(rows: Sequence[PageRow]) -> Iterator[Metric]:
    """What leaves take by themselves."""
    for key, label, how in (
        ("isolated_hot", "Alone, hot", "a leaf alone on the inputs that it had, at once again"),
        ("isolated_cold", "Alone, cold", "a leaf alone on the inputs that it had, caches swept"),
    ):
        medians = _medians(rows, figure("time", key))
        yield Metric(
            key=key, label=label, unit="seconds", how=f"{how}: median of its calls", values=medians
        )


def _energy(rows: Sequence[PageRow], energy: Energy, base_s: float) -> Metric:
    """The share of each module of the forward's energy, with what it lies between."""

    def shares(name: str) -> list[float | None]:
        times = [figure("time", name)(row) if row.kind == "module" else None for row in rows]
        return [time.mean / base_s if time is not None and base_s > 0 else None for time in times]

    def between(parts: Sequence[float | None]) -> tuple[Interval | None, ...]:
        ends = (None if part is None else bounds(energy, part) for part in parts)
        return tuple(
            None if pair is None else (rounded(pair[0]), rounded(pair[1])) for pair in ends
        )

    inclusive, own = shares("inclusive"), shares("self_")
    values, selfs = (
        tuple(None if part is None else rounded(part * energy.forward_j) for part in parts)
        for parts in (inclusive, own)
    )
    return Metric(
        key="energy",
        label="≈ Energy",
        unit="joules",
        how="share of the time times the joules of an untouched forward: no counter tells layers "
        f"apart; read from {energy.counters}",
        values=values,
        own=selfs,
        area=tuple(max(0.0, joules or 0.0) for joules in selfs),
        between=between(inclusive),
        own_between=between(own),
    )


def _step_times(rows: Sequence[PageRow], training: TrainingProfile) -> Iterator[Metric]:
    rounds = training.device_rounds
    timed = training.step if rounds is None or rounds.span is None else rounds.span
    number = units.count(timed.n)
    how = f"{_where(training)}: median of {number} training steps"
    again = ("recomputation",) if training.recomputation else ()
    for name in ("forward", "backward", *again):
        inclusive, own = figure("step", name), figure("step", f"{name}_self")
        yield Metric(
            key=name,
            label=name.capitalize(),
            unit="seconds",
            how=how,
            values=_medians(rows, inclusive),
            own=_medians(rows, own),
            area=tuple(rounded(value) for value in _mean(rows, own)),
        )


def _beside_a_step(rows: Sequence[PageRow], of: str) -> Iterator[Metric]:
    """What launching a row's forward and backward takes, and how many kernels that launches.

    Args:
        rows: of the page.
        of: behind the labels, where others have the same.
    """
    own = [_both(row, "host_forward_self", "host_backward_self") for row in rows]
    yield Metric(
        key="step_host",
        label=f"Host time{of}",
        unit="seconds",
        how="forward and backward on the host's clock, in steps without an event in the device's "
        "queue: sum of medians",
        values=tuple(_both(row, "host_forward", "host_backward") for row in rows),
        own=tuple(own),
        area=tuple(time or 0.0 for time in own),
    )
    yield _metric(
        rows,
        ("step_kernels", f"Device kernels{of}", "count"),
        "kernels that the device ran in forward and backward of one step",
        figure("step", "kernels"),
    )


def _predicted(rows: Sequence[PageRow], latency: LatencyEstimate) -> Iterator[Metric]:
    """Times on a GPU that was not there, and what they come from."""
    how = f"predicted for {latency.card.title}"
    yield _metric(
        rows,
        ("predicted", "Predicted time", "seconds"),
        f"{how}: not measured",
        figure("predicted", "seconds"),
        figure("predicted", "own_seconds"),
    )
    yield _metric(
        rows,
        ("moved", "Bytes moved", "bytes"),
        f"{how}: of the tensors that its operators read and write",
        figure("predicted", "bytes"),
        figure("predicted", "own_bytes"),
    )


def _both(row: PageRow, *names: str) -> float | None:
    """The sum of two medians; ``None`` where there is neither."""
    times = [time for time in (figure("step", name)(row) for name in names) if time is not None]
    return rounded(fsum(time.median for time in times)) if times else None


def _held(rows: Sequence[PageRow], memory: MemoryReport | MemoryEstimate) -> Iterator[Metric]:
    how = (
        "tensors of a real run"
        if isinstance(memory, MemoryReport)
        else f"predicted for {memory.on}"
    )
    yield _metric(
        rows,
        ("at_peak", "At the peak", "bytes"),
        f"{how}: alive at the peak, by the module that allocated them",
        figure("bytes", "at_peak"),
        figure("bytes", "self_at_peak"),
    )
    yield _metric(
        rows,
        ("kept", "Kept", "bytes"),
        f"{how}: alive when the forward had ended",
        figure("bytes", "kept"),
        figure("bytes", "self_kept"),
    )
    yield _metric(
        rows,
        ("live", "Live peak", "bytes"),
        f"{how}: the most bytes alive while it ran",
        figure("bytes", "live_peak"),
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
        area=tuple(max(0, value or 0) for value in selfs) if adds else (),
    )


def _without_children(
    rows: Sequence[PageRow], values: Sequence[Number | None]
) -> list[Number | None]:
    rest = list(values)
    for index, above in enumerate(parents(rows)):
        whole, part = rest[above] if above >= 0 else None, values[index]
        if whole is not None and part is not None:
            rest[above] = max(0, whole - part)
    return rest


def _medians(
    rows: Sequence[PageRow], summary: Callable[[PageRow], Summary | None]
) -> tuple[float | None, ...]:
    times = map(summary, rows)
    return tuple(None if time is None else rounded(time.median) for time in times)


def _mean(rows: Sequence[PageRow], summary: Callable[[PageRow], Summary | None]) -> list[float]:
    return [0.0 if time is None else time.mean for time in map(summary, rows)]


def rounded(value: float) -> float:
    """With as many digits as anybody looks at: the page is a third shorter for it."""
    return value if isinstance(value, int) else float(f"{value:.6g}")
