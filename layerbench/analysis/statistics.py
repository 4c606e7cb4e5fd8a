"""Summaries, intervals and noise verdicts: from samples in seconds to what may be believed.

Samples of consecutive iterations are correlated (a busy neighbour slows several in a row), so
an interval that takes them for independent is too narrow. Within one process the interval of
the median therefore comes from a circular block bootstrap. Between processes times differ by
more than within one (memory layout, where the scheduler put the threads), so that with several
processes only the spread of the processes' medians says how far the figure can be trusted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis.student_t import quantile
from layerbench.records.timing import Summary, Verdict
from layerbench.units import percent

Samples = NDArray[np.float64]
Rows = NDArray[np.float64]
"""Samples of many rows of one measurement, shape (rows, n): a row's are beside one another."""

CONFIDENCE = 0.95
_ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# 1000 resamples place each end of a 95 % interval by 25 resamples beyond it: steady to a
# few per cent of its width, and under 2 ms a row.
RESAMPLES = 1000
# Blocks of 2 n^(1/3) samples: n^(1/3) is the rate that errs least, the factor comes from
# simulation (300 samples, 2500 trials). Compared with 1, it raises the coverage of an
# autoregressive series with coefficient 0.8 from 82 % to 87 %; with 0.5 (92 %) and for
# independent samples (96 %) it changes nothing.
BLOCK_FACTOR = 2
# The quartiles of a quiet machine lie within a few per cent of the median. Where they are
# further apart than this, another run can well show another median.
RELATIVE_IQR_LIMIT = 0.10
# A reader compares variants that differ by a few per cent: the figure must be known better.
HALF_WIDTH_LIMIT = 0.02
# Medians of processes differ by more than their own intervals, and 5 of them determine a
# spread poorly (Student's t is 2.8 instead of 2.0), so the interval is honestly wider.
HALF_WIDTH_LIMIT_PROCESSES = 0.05
# Slower changes than this over a run are lost in the differences between runs; larger ones
# mean that clocks, heat or a neighbour moved and that no single figure describes the run.
DRIFT_LIMIT = 0.05
# Thirds of fewer than 3 samples have no median to speak of.
DRIFT_SAMPLES = 9
# Rows that are resampled at a time, so that their running counts stay in a core's cache.
CHUNK = 64
# And so many whose resamples are held at once: 25 MB.
MOST_ROWS = 1024
# Record times to 0.1 ns: finer than any clock here, and JSON stays short.
DECIMALS = 10


class Resampler:
    """How the samples of every row of one measurement are resampled: one plan, shared.

    The plan depends on the sizes and the seed alone, so that rows of one measurement are
    resampled alike and the same samples always give the same interval.

    Args:
        group_sizes: number of samples of each fresh process, in order; their sum is the
            number of samples a row has.
        seed: seed of the resampling.

    Raises:
        ValueError: there is no sample, or a group without one.
    """

    def __init__(self, group_sizes: Sequence[int], seed: int = 0) -> None:
        if not group_sizes or min(group_sizes) < 1:
            raise ValueError(f"every group needs at least one sample, got {list(group_sizes)}")
        self.group_sizes = tuple(int(size) for size in group_sizes)
        self.n = sum(self.group_sizes)
        self._bounds = np.cumsum(self.group_sizes)[:-1]
        self._seed = seed
        self._plans: dict[int, NDArray[np.unsignedinteger]] = {}

    def groups(self, rows: Rows) -> list[Rows]:
        """The samples of each process, along the last axis.

        Raises:
            ValueError: the number of samples is not the plan's.
        """
        if rows.shape[-1:] != (self.n,):
            raise ValueError(f"the plan is for {self.n} samples, got shape {rows.shape}")
        return np.split(rows, self._bounds, axis=-1)

    def median_interval(self, samples: Samples) -> tuple[float, float]:
        """A 95 % interval of the median, which it always contains.

        One process: percentile interval of a circular block bootstrap (Politis & Romano 1992)
        with blocks of 2 n^(1/3) samples, widened to the interval between order statistics that
        holds the median of independent samples of any distribution (the sign test's interval):
        of few samples, the bootstrap alone covers too little (87 % for 10).
        Several processes: mean of their medians plus or minus Student's t with P - 1 degrees
        of freedom times the standard error of that mean.

        Args:
            samples: seconds (or a ratio), shape ``(n,)``, process after process.

        Raises:
            ValueError: the number of samples is not the plan's.
        """
        low, high = self.median_intervals(_one_row(samples))
        return float(low[0]), float(high[0])

    def median_intervals(self, rows: Rows) -> tuple[Samples, Samples]:
        """As `median_interval`, the lower and the upper ends of many rows, shape (rows,) each."""
        groups = self.groups(rows)
        low, high = self._within(rows) if len(groups) == 1 else _between(groups)
        medians = np.median(rows, axis=1)
        return np.minimum(low, medians), np.maximum(high, medians)

    def drifts(self, rows: Rows) -> Samples:
        """Relative change of each row's median from the first third of a run to its last third.

        Judged within each process and then the median over processes. A change that the
        intervals of the two thirds explain (they overlap) counts as 0, as does a run of
        fewer than 9 samples: otherwise mere noise would be called drift.
        """
        groups = self.groups(rows)
        drifts: Samples = np.median([_raw_drifts(group) for group in groups], axis=0)
        doubtful = np.abs(drifts) > DRIFT_LIMIT
        drifts[~doubtful] = 0.0
        if doubtful.any():
            explained = [self._explained_drifts(group[doubtful]) for group in groups]
            drifts[doubtful] = np.median(explained, axis=0)
        return drifts

    def _explained_drifts(self, rows: Rows) -> Samples:
        """The change within one process, or 0 where the thirds' intervals overlap."""
        if rows.shape[1] < DRIFT_SAMPLES:
            return np.zeros(len(rows))
        first, last = _thirds(rows)
        first_low, first_high = self._within(first)
        last_low, last_high = self._within(last)
        apart = (last_low > first_high) | (first_low > last_high)
        return np.where(apart, _raw_drifts(rows), 0.0)

    def _within(self, rows: Rows) -> tuple[Samples, Samples]:
        """Intervals from the samples of one process."""
        n = rows.shape[1]
        ascending = np.sort(rows, axis=1)
        outside = _sign_test_rank(n)
        low, high = ascending[:, outside], ascending[:, -1 - outside]
        if outside > 0:  # otherwise these are all samples, and nothing is wider
            ends = np.concatenate(
                [
                    np.quantile(_resampled_medians(part, self._plan(n)), _ENDS, axis=1)
                    for part in np.split(rows, range(MOST_ROWS, len(rows), MOST_ROWS))
                ],
                axis=1,
            )
            low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
        return low, high

    def _plan(self, n: int) -> NDArray[np.unsignedinteger]:
        """The resamples for ``n`` samples, made once; see `_block_counts`."""
        if n not in self._plans:
            self._plans[n] = _block_counts(n, np.random.default_rng([self._seed, n]))
        return self._plans[n]


def summarize(samples_s: Samples, resampler: Resampler) -> Summary:
    """The distribution of the samples, the interval of their median, and a verdict.

    ``std`` is the sample standard deviation (divisor n - 1; 0 for one sample), ``mad`` the
    median absolute deviation from the median, unscaled. The interval is the one of
    `Resampler.median_interval`.

    Args:
        samples_s: seconds, shape ``(n,)``, process after process.
        resampler: the resampling plan of this measurement.
    """
    return summarize_rows(_one_row(samples_s), resampler)[0]


def summarize_rows(rows_s: Rows, resampler: Resampler) -> list[Summary]:
    """As `summarize`, of many rows at once: a model can have tens of thousands.

    Args:
        rows_s: seconds, shape ``(rows, n)``.
        resampler: the resampling plan of this measurement.
    """
    # In memory row by row: sums come out as they do for a row alone.
    rows = np.ascontiguousarray(rows_s)
    if not len(rows):
        return []
    low, high = resampler.median_intervals(rows)
    p5, p25, median, p75, p95, p99 = np.percentile(rows, [5, 25, 50, 75, 95, 99], axis=1)
    figures = {
        "mean": rows.mean(axis=1),
        "std": rows.std(axis=1, ddof=1) if resampler.n > 1 else np.zeros(len(rows)),
        "median": median,
        "mad": np.median(np.abs(rows - median[:, None]), axis=1),
        "min": rows.min(axis=1),
        "max": rows.max(axis=1),
        "p5": p5,
        "p25": p25,
        "p75": p75,
        "p95": p95,
        "p99": p99,
        "ci_low": low,
        "ci_high": high,
    }
    judged = _judged(resampler, resampler.drifts(rows), p25, median, p75, (high - low) / 2)
    medians = _process_medians(rows, resampler)
    columns = [column.tolist() for column in figures.values()]
    return [
        Summary(
            n=resampler.n,
            verdict=verdict,
            missed=missed,
            process_medians=processes,
            **{name: round(value, DECIMALS) for name, value in zip(figures, values, strict=True)},
        )
        for (verdict, missed), processes, values in zip(
            judged, medians, zip(*columns, strict=True), strict=True
        )
    ]


def _process_medians(rows: Rows, resampler: Resampler) -> list[tuple[float, ...]]:
    """One for each process; none where there is only one, whose median the summary has."""
    groups = resampler.groups(rows)
    if len(groups) == 1:
        return [()] * len(rows)
    medians = np.stack([np.median(group, axis=1) for group in groups], axis=1)
    return [tuple(round(value, DECIMALS) for value in row) for row in medians.tolist()]


def _judged(
    resampler: Resampler,
    drifts: Samples,
    p25: Samples,
    median: Samples,
    p75: Samples,
    half_width: Samples,
) -> list[tuple[Verdict, tuple[str, ...]]]:
    """The verdict on each row, and each criterion it missed with its figure and limit.

    ``drifting``: the last third's median differs from the first third's by more than 5 %, and
    by more than the noise explains. ``noisy``: the middle half of the samples, or the interval
    of the median, is too wide for the median to be believed; or there is one sample only.
    A row that drifts also spreads, so drift, which names the cause, comes first.
    """
    if resampler.n == 1:
        return [("noisy", ("one sample",))] * len(drifts)
    several = len(resampler.group_sizes) > 1
    limit = HALF_WIDTH_LIMIT_PROCESSES if several else HALF_WIDTH_LIMIT
    judged: list[tuple[Verdict, tuple[str, ...]]] = []
    for drift, spread, middle, half in zip(
        drifts.tolist(), (p75 - p25).tolist(), median.tolist(), half_width.tolist(), strict=True
    ):
        drifted = _missed("upward drift" if drift > 0 else "downward drift", drift, DRIFT_LIMIT)
        wide = _missed("relative IQR", _relative(spread, middle), RELATIVE_IQR_LIMIT) + _missed(
            "interval half-width", _relative(half, middle), limit
        )
        if drifted:
            judged.append(("drifting", drifted + wide))
        else:
            judged.append(("noisy", wide) if wide else ("stable", ()))
    return judged


def paired_ratio(
    numerator: Samples, denominator: Samples, resampler: Resampler
) -> tuple[float, float, float]:
    """Median over rounds of numerator / denominator, with its 95 % interval.

    Pairing within a round cancels what slows both alike. Two times of 0 count as equal.

    Args:
        numerator: seconds, shape ``(n,)``.
        denominator: seconds of the same rounds, shape ``(n,)``.
        resampler: the resampling plan of this measurement.

    Returns:
        The ratio and the bounds of its interval.
    """
    both_zero = (numerator == 0) & (denominator == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(both_zero, 1.0, numerator / denominator)
    low, high = resampler.median_interval(ratios)
    return float(np.median(ratios)), low, high


def relative_half_width(samples: Samples, resampler: Resampler) -> float:
    """Half the width of the median's 95 % interval, relative to the median.

    Infinite for one sample, which says nothing about how far it is from the next.
    """
    if samples.size < 2:
        return math.inf
    low, high = resampler.median_interval(samples)
    return _relative((high - low) / 2, float(np.median(samples)))


@functools.cache
def _sign_test_rank(n: int) -> int:
    """How many samples at each end can lie outside a 95 % interval of the median.

    The number of independent samples below the median is binomial with p = 1/2; at most
    2.5 % of cases may have so few there that the interval begins above the median.
    """
    outside, cases = 0, 1  # cases in which no more than `outside` samples are below the median
    term = 1
    tails = round(2 / (1 - CONFIDENCE))  # in integers: 2**n overflows a float
    while tails * cases <= 2**n:
        term = term * (n - outside) // (outside + 1)
        outside += 1
        cases += term
    return max(0, outside - 1)


def _block_counts(n: int, rng: np.random.Generator) -> NDArray[np.unsignedinteger]:
    """How often each sample occurs in each resample, shape ``(n, RESAMPLES)``.

    Circular blocks: starts uniform over all samples, a block that runs over the end goes on
    at the beginning, so that every sample is drawn equally often on average.
    """
    length = max(1, round(BLOCK_FACTOR * n ** (1 / 3)))
    starts = rng.integers(0, n, size=(RESAMPLES, math.ceil(n / length), 1))
    chosen = ((starts + np.arange(length)) % n).reshape(RESAMPLES, -1)[:, :n]
    flat = chosen * RESAMPLES + np.arange(RESAMPLES)[:, None]
    counts = np.bincount(flat.ravel(), minlength=n * RESAMPLES).reshape(n, RESAMPLES)
    return counts.astype(np.uint16 if n < 2**16 else np.uint32)


def _resampled_medians(rows: Rows, counts: NDArray[np.unsignedinteger]) -> Rows:
    """The median of each resample, shape (rows, `RESAMPLES`).

    With the samples in ascending order, a resample's k-th smallest is where its running count
    reaches k. This needs no resample to be laid out or sorted. Medians of resamples lie close to
    the median: counting begins a few standard deviations of its rank below (those of independent
    samples), and ends where all resamples have come to theirs; a row where that was too late
    begins at its smallest sample.
    """
    n = rows.shape[1]
    order = np.argsort(rows, axis=1)
    ascending = np.take_along_axis(rows, order, axis=1)
    start = max(0, n // 2 - round(3 * math.sqrt(n)))
    lower, upper = np.empty((2, len(rows), RESAMPLES), dtype=np.intp)
    # Small whole numbers, which single precision holds exactly.
    as_floats = counts.astype(np.float32)
    for begin in range(0, len(rows), CHUNK):
        part = order[begin : begin + CHUNK]
        before = _counts_before(part, start, as_floats)
        late = (before >= (n + 1) // 2).any(axis=1)
        for chosen, at, reached in ((~late, start, before[~late]), (late, 0, None)):
            if chosen.any():
                where = begin + np.flatnonzero(chosen)
                lower[where], upper[where] = _median_ranks(part[chosen], counts, at, reached)
    row = np.arange(len(rows))[:, None]
    medians: Rows = (ascending[row, lower] + ascending[row, upper]) / 2
    return medians


def _counts_before(
    order: NDArray[np.intp], start: int, counts: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How many of each resample are among the ``start`` smallest, shape (rows, `RESAMPLES`)."""
    chosen = np.zeros(order.shape, dtype=np.float32)
    np.put_along_axis(chosen, order[:, :start], 1.0, axis=1)
    reached: NDArray[np.float32] = chosen @ counts
    return reached


def _median_ranks(
    order: NDArray[np.intp],
    counts: NDArray[np.unsignedinteger],
    start: int,
    reached: NDArray[np.float32] | None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The ranks of each resample's two middle samples; of an odd number they are the same.

    Args:
        order: of each row's samples, ascending, shape (rows, n).
        counts: how often each sample is in each resample, shape (n, `RESAMPLES`).
        start: the rank that counting begins at.
        reached: the running counts there; ``None`` at rank 0.
    """
    n = order.shape[1]
    first, second = (n + 1) // 2, n // 2 + 1
    running = np.zeros((len(order), counts.shape[1]), dtype=counts.dtype)
    if reached is not None:
        running[:] = reached
    lower = np.full(running.shape, start, dtype=np.intp)
    upper = lower if n % 2 else lower.copy()
    for rank in range(start, n):
        running += counts[order[:, rank]]
        lower += running < first
        if upper is not lower:
            upper += running < second
        if (rank - start) % 8 == 7 and running.min() >= second:
            break
    return lower, upper


def _between(groups: Sequence[Rows]) -> tuple[Samples, Samples]:
    """Student's interval of the mean of the processes' medians."""
    medians = np.stack([np.median(group, axis=1) for group in groups], axis=1)
    t = quantile(CONFIDENCE, len(groups) - 1)
    centre = medians.mean(axis=1)
    half = t * medians.std(axis=1, ddof=1) / math.sqrt(len(groups))
    return centre - half, centre + half


def _raw_drifts(rows: Rows) -> Samples:
    """Relative change from the first third's median to the last third's."""
    if rows.shape[1] < DRIFT_SAMPLES:
        return np.zeros(len(rows))
    first, last = (np.median(third, axis=1) for third in _thirds(rows))
    pairs = zip((last - first).tolist(), first.tolist(), strict=True)
    return np.array([_relative(change, before) for change, before in pairs])


def _thirds(rows: Rows) -> tuple[Rows, Rows]:
    """The first and the last third of a run."""
    third = rows.shape[1] // 3
    return rows[:, :third], rows[:, -third:]


def _one_row(samples: Samples) -> Rows:
    """One row's samples as many rows'."""
    return np.ascontiguousarray(samples)[None]


def _relative(part: float, whole: float) -> float:
    """``part / whole``; for a whole of 0 it is 0 (0 / 0) or infinite."""
    if part == 0:
        return 0.0
    return float(part / whole) if whole > 0 else math.copysign(math.inf, part)


def _missed(name: str, figure: float, limit: float) -> tuple[str, ...]:
    """The criterion as text if the figure, of either sign, is beyond the limit."""
    if abs(figure) <= limit:
        return ()
    return (f"{name} {percent(abs(figure), beyond=limit)} > {percent(limit)}",)
