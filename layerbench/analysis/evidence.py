"""What two records say about one row: its ratio, and how far it can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from layerbench.analysis import ratios
from layerbench.analysis.disturbance import clocks_apart, held_in, of_device, too_busy
from layerbench.analysis.kernel_pairs import KernelPair, Side
from layerbench.analysis.ratios import LogRatio
from layerbench.errors import ComparisonError
from layerbench.records import contention
from layerbench.records.comparison import ONLY_WHOLE, Method
from layerbench.records.contention import Holding
from layerbench.records.timing import KernelRow, LayerRow, Profile, Summary


@dataclass(frozen=True)
class Voids:
    """Why nothing can be told of some times, in a few sentences; empty where something can.

    Attributes:
        whole: of the untouched whole.
        rows: of rows on the device's clock.
        host_rows: of rows on the host's clock.
    """

    whole: str = ""
    rows: str = ""
    host_rows: str = ""

    @classmethod
    def of(cls, host: str, device: str, holding: Holding) -> Voids:
        """What follows for the times.

        Args:
            host: why times that hold the host's waits tell nothing.
            device: why an accelerator's times tell nothing.
            holding: which times hold the host's waits.
        """
        return cls(
            whole=device or (host if holding != "host" else ""),
            rows=device or (host if holding == "every" else ""),
            host_rows=host,
        )

    def and_of(self, other: Voids) -> Voids:
        """The same of two sides; where both say why, the first one's words stay."""
        return Voids(
            self.whole or other.whole, self.rows or other.rows, self.host_rows or other.host_rows
        )


@dataclass(frozen=True)
class Evidence:
    """The estimates of a comparison's ratios.

    Attributes:
        method: how it came about.
        whole: of the untouched whole model.
        rows: of the rows that both sides have, by path.
        host_rows: of the same on the host's clock, where both sides have the device's times apart.
        allowance: of the logarithm, for what the machine may have changed by between the sides.
        clock_allowance: the same of the whole and of the rows, for an accelerator's clock.
        voids: why nothing can be told.
        kernels: of pairs of kernels, by their numbers.
    """

    method: Method
    whole: Estimate
    rows: Mapping[str, Estimate]
    allowance: float = 0.0
    clock_allowance: float = 0.0
    voids: Voids = field(default_factory=Voids)
    host_rows: Mapping[str, Estimate] = field(default_factory=dict)
    kernels: Mapping[int, Estimate] = field(default_factory=dict)


def of_records(
    baseline: Profile, contender: Profile, kernels: Sequence[KernelPair] = ()
) -> Evidence:
    """The evidence of two records, which hold medians of processes and no samples.

    Args:
        baseline, contender: the records.
        kernels: pairs of kernels to be compared, too.
    """
    several = min(processes_of(baseline), processes_of(contender)) > 1
    blocks = {row.path for row in contender.layers if row.block}
    rows, host_rows = (
        _estimates(pairs, blocks)
        for pairs in (timed_on_both(baseline, contender), launched_on_both(baseline, contender))
    )
    whole = _estimate(baseline.whole, contender.whole, WHOLES_APART)
    if whole is None:
        raise ComparisonError("a whole model that took no time cannot be compared")
    return Evidence(
        method="processes" if several else "one process",
        whole=whole,
        rows=rows,
        allowance=session_allowance(baseline, contender) if several else 0.0,
        clock_allowance=clocks_apart(baseline.environment, contender.environment),
        voids=_voids(baseline, contender),
        host_rows=host_rows,
        kernels=_kernel_estimates(baseline, contender, kernels),
    )


def _kernel_estimates(
    baseline: Profile, contender: Profile, pairs: Sequence[KernelPair]
) -> dict[int, Estimate]:
    before, after = (_own_times(record) for record in (baseline, contender))
    estimates = (
        _estimate(_added_up(pair.before, before), _added_up(pair.after, after), ROWS_APART)
        for pair in pairs
    )
    return {at: estimate for at, estimate in enumerate(estimates) if estimate is not None}


def _own_times(record: Profile) -> dict[str, Summary]:
    return {row.path: row.self_ for row in record.layers if row.self_ is not None}


def _added_up(side: Side, own: Mapping[str, Summary]) -> Known:
    """A kernel's time, or that of the rows beside it; their errors may all point one way."""
    if isinstance(side, KernelRow):
        return side.time
    parts = [(one.part, own[one.path]) for one in side]
    median, low, high = (
        math.fsum(part * getattr(time, name) for part, time in parts)
        for name in ("median", "ci_low", "ci_high")
    )
    medians = [[part * one for one in time.process_medians] for part, time in parts]
    together = len({len(one) for one in medians}) == 1
    return _Sum(
        median, low, high, tuple(map(math.fsum, zip(*medians, strict=True))) if together else ()
    )


class Known(Protocol):
    """A time, and how well it is known; fields as in `layerbench.records.timing.Summary`."""

    @property
    def median(self) -> float:
        """Seconds."""

    @property
    def ci_low(self) -> float:
        """Of the median."""

    @property
    def ci_high(self) -> float:
        """Of the median."""

    @property
    def process_medians(self) -> tuple[float, ...]:
        """Of several processes."""


@dataclass(frozen=True)
class _Sum:
    median: float
    ci_low: float
    ci_high: float
    process_medians: tuple[float, ...]


def _estimates(pairs: Mapping[str, Times], blocks: Collection[str]) -> dict[str, Estimate]:
    """Of the rows of which both times are positive."""
    estimates = {
        path: _estimate(before, after, WHOLES_APART if path in blocks else ROWS_APART)
        for path, (before, after) in pairs.items()
    }
    return {path: estimate for path, estimate in estimates.items() if estimate is not None}


def processes_of(record: Profile) -> int:
    """Fresh processes that a record was measured in."""
    return max(1, len(record.process_medians))


def session_allowance(baseline: Profile, contender: Profile) -> float:
    """What the machine may have changed by from one measurement to the other, as a logarithm.

    A machine that gives fresh processes different times also changes between two measurements;
    the spread of the whole model's process medians, on both sides together, is what is known of
    it.
    """
    records = (baseline, contender)
    if any(median <= 0 for record in records for median in record.process_medians):
        raise ComparisonError("a whole model that took no time in a process cannot be compared")
    groups = [[math.log(median) for median in record.process_medians] for record in records]
    deviations = [value - sum(group) / len(group) for group in groups for value in group]
    df = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum(value**2 for value in deviations) / df)


def _alone(summary: Known) -> LogRatio:
    """The logarithm of one side's time: by its processes, or by its interval where it has one.

    Raises:
        ValueError: a time that is not positive.
    """
    if len(summary.process_medians) > 1:
        return ratios.of_processes(summary.process_medians)
    return ratios.of_interval(summary.median, summary.ci_low, summary.ci_high)


Times = tuple[Summary, Summary]
"""The baseline's and the contender's."""


def timed_on_both(baseline: Profile, contender: Profile) -> dict[str, Times]:
    """Times of the rows below the whole that both sides have, in the contender's order.

    None where they are times of different things; see `unlike_rows`.
    """
    if unlike_rows(baseline, contender):
        return {}
    return _on_both(baseline, contender, lambda row: row.inclusive)


def launched_on_both(baseline: Profile, contender: Profile) -> dict[str, Times]:
    """The same on the host's clock; none unless both sides have the device's apart from it."""
    if baseline.device_rounds is None or contender.device_rounds is None:
        return {}
    return _on_both(baseline, contender, lambda row: row.host_inclusive)


def _on_both(
    baseline: Profile, contender: Profile, time_of: Callable[[LayerRow], Summary | None]
) -> dict[str, Times]:
    before = {row.path: time_of(row) for row in baseline.layers}
    return {
        row.path: (earlier, time)
        for row in contender.layers
        if row.path and (time := time_of(row)) and (earlier := before.get(row.path)) is not None
    }


def unlike_rows(baseline: Profile, contender: Profile) -> str:
    """Why times of rows are not those of the same; empty where they are.

    Before there were device rounds, a row's time on an accelerator held its launching.
    """
    records = {"baseline": baseline, "contender": contender}
    on_cpu = any(record.environment.device.kind == "cpu" for record in records.values())
    apart = [name for name, record in records.items() if record.device_rounds is not None]
    if on_cpu or len(apart) != 1 or not (baseline.layers and contender.layers):
        return ""
    (other,) = records.keys() - apart
    return (
        f"{ONLY_WHOLE}: the {apart[0]}'s rows have times of the device alone, "
        f"and the {other}'s times with launching in them. Measure the {other} anew."
    )


@dataclass(frozen=True)
class Apart:
    """How far two processes of one model are assumed to lie apart, as Student's distribution.

    Attributes:
        scale: of the logarithm of the ratio of their medians.
        df: degrees of freedom.
    """

    scale: float
    df: float


# One process each: nobody knows how far two processes of one model would lie apart, and what was
# measured on a busy two-core machine is taken. Medians of the whole and of blocks differed by 9 %
# in half of the pairs, and by 32 % in one of twenty; those of all rows, many of microseconds, by
# 12 %, and by 65 to 80 % (docs/compare.md).
WHOLES_APART = Apart(0.12, 5.0)


ROWS_APART = Apart(0.15, 3.0)


@dataclass(frozen=True)
class Estimate:
    """The estimate of one row, with times and ratio by the same estimator.

    Attributes:
        ratio: contender over baseline.
        level_s: the geometric mean of both sides' times.
    """

    ratio: LogRatio
    level_s: float

    @property
    def baseline_s(self) -> float:
        """The baseline's time."""
        return self.level_s * math.exp(-self.ratio.centre / 2)

    @property
    def contender_s(self) -> float:
        """The contender's time: the ratio times the baseline's."""
        return self.level_s * math.exp(self.ratio.centre / 2)


def _voids(baseline: Profile, contender: Profile) -> Voids:
    """Why times of a side mean nothing."""
    sides = (("baseline", baseline), ("contender", contender))
    first, second = (_voids_of(f"Of the {name}: ", record) for name, record in sides)
    return first.and_of(second)


def _voids_of(before: str, record: Profile) -> Voids:
    """Of one side, with these words before each reason."""
    host, device = _too_busy(record), of_device(record.environment)
    host, device = (reason and before + reason for reason in (host, device))
    return Voids.of(host, device, held_in(record))


def _too_busy(record: Profile) -> str:
    machine = record.environment.machine
    if machine.waits is None and record.environment.device.kind == "cpu":
        threads = machine.threads or record.plan.threads
        return contention.crowded(machine.other_work_fraction, threads, machine.cores)
    return too_busy(record)


def _estimate(baseline: Known, contender: Known, apart: Apart) -> Estimate | None:
    """``None`` where a time of 0 leaves no ratio."""
    before, after = baseline.process_medians, contender.process_medians
    try:
        first, second = (_alone(one) for one in (baseline, contender))
        if min(len(before), len(after)) > 1:
            ratio = ratios.of_groups(before, after)
        else:
            scale = math.hypot(first.scale, second.scale, apart.scale)
            ratio = LogRatio(second.centre - first.centre, scale, apart.df)
    except ValueError:
        return None
    return Estimate(ratio, math.exp((first.centre + second.centre) / 2))
