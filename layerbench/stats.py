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

from layerbench.records import Summary, Verdict
from layerbench.student import quantile
from layerbench.units import percent

Samples = NDArray[np.float64]

CONFIDENCE = 0.95
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

    def groups(self, samples: Samples) -> list[Samples]:
        """The samples of each process.

        Raises:
            ValueError: the number of samples is not the plan's.
        """
        if samples.shape != (self.n,):
            raise ValueError(f"the plan is for {self.n} samples, got shape {samples.shape}")
        return np.split(samples, self._bounds)

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
        """
        groups = self.groups(samples)
        low, high = self._within(samples) if len(groups) == 1 else _between(groups)
        median = float(np.median(samples))
        return min(low, median), max(high, median)

    def drift(self, samples: Samples) -> float:
        """Relative change of the median from the first third of a run to its last third.

        Judged within each process and then the median over processes. A change that the
        intervals of the two thirds explain (they overlap) counts as 0, as does a run of
        fewer than 9 samples: otherwise mere noise would be called drift.
        """
        groups = self.groups(samples)
        if abs(_median([_raw_drift(group) for group in groups])) <= DRIFT_LIMIT:
            return 0.0
        return _median([self._explained_drift(group) for group in groups])

    def _explained_drift(self, group: Samples) -> float:
        """The change within one process, or 0 where the thirds' intervals overlap."""
        if group.size < DRIFT_SAMPLES:
            return 0.0
        first, last = _thirds(group)
        first_low, first_high = self._within(first)
        last_low, last_high = self._within(last)
        apart = last_low > first_high or first_low > last_high
        return _raw_drift(group) if apart else 0.0

    def _within(self, samples: Samples) -> tuple[float, float]:
        """Interval from the samples of one process."""
        ascending = np.sort(samples)
        outside = _sign_test_rank(samples.size)
        low, high = ascending[outside], ascending[-1 - outside]
        if outside > 0:  # otherwise these are all samples, and nothing is wider
            medians = _resampled_medians(samples, self._plan(samples.size))
            ends = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            low, high = min(low, ends[0]), max(high, ends[1])
        return float(low), float(high)

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
    interval = resampler.median_interval(samples_s)
    p5, p25, median, p75, p95, p99 = np.percentile(samples_s, [5, 25, 50, 75, 95, 99])
    verdict, missed = judge(samples_s, resampler, interval)
    figures = {
        "mean": samples_s.mean(),
        "std": samples_s.std(ddof=1) if samples_s.size > 1 else 0.0,
        "median": median,
        "mad": np.median(np.abs(samples_s - median)),
        "min": samples_s.min(),
        "max": samples_s.max(),
        "p5": p5,
        "p25": p25,
        "p75": p75,
        "p95": p95,
        "p99": p99,
        "ci_low": interval[0],
        "ci_high": interval[1],
    }
    rounded = {name: round(float(value), DECIMALS) for name, value in figures.items()}
    return Summary(
        n=samples_s.size,
        verdict=verdict,
        missed=missed,
        process_medians=_process_medians(samples_s, resampler),
        **rounded,
    )


def _process_medians(samples_s: Samples, resampler: Resampler) -> tuple[float, ...]:
    """One for each process; none where there is only one, whose median the summary has."""
    groups = resampler.groups(samples_s)
    if len(groups) == 1:
        return ()
    return tuple(round(float(np.median(group)), DECIMALS) for group in groups)


def judge(
    samples: Samples, resampler: Resampler, interval: tuple[float, float]
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on a row, and each criterion it missed with its figure and limit.

    ``drifting``: the last third's median differs from the first third's by more than 5 %, and
    by more than the noise explains. ``noisy``: the middle half of the samples, or the interval
    of the median, is too wide for the median to be believed; or there is one sample only.
    A row that drifts also spreads, so drift, which names the cause, comes first.
    """
    if samples.size == 1:
        return "noisy", ("one sample",)
    p25, median, p75 = np.percentile(samples, [25, 50, 75])
    several = len(resampler.group_sizes) > 1
    drift = resampler.drift(samples)
    drifted = _missed("upward drift" if drift > 0 else "downward drift", drift, DRIFT_LIMIT)
    spread = _missed("relative IQR", _relative(p75 - p25, median), RELATIVE_IQR_LIMIT) + _missed(
        "interval half-width",
        _relative((interval[1] - interval[0]) / 2, median),
        HALF_WIDTH_LIMIT_PROCESSES if several else HALF_WIDTH_LIMIT,
    )
    if drifted:
        return "drifting", drifted + spread
    return ("noisy", spread) if spread else ("stable", ())


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


def _resampled_medians(samples: Samples, counts: NDArray[np.unsignedinteger]) -> Samples:
    """The median of each resample, shape ``(RESAMPLES,)``.

    With the samples in ascending order, a resample's k-th smallest is where its running count
    reaches k. This needs no resample to be laid out or sorted, and is several times faster.
    """
    n = samples.size
    order = np.argsort(samples)
    ascending = samples[order]
    running = np.cumsum(counts[order], axis=0, dtype=counts.dtype)
    lower = np.count_nonzero(running < (n + 1) // 2, axis=0)
    upper = lower if n % 2 else np.count_nonzero(running < n // 2 + 1, axis=0)
    medians: Samples = (ascending[lower] + ascending[upper]) / 2
    return medians


def _between(groups: Sequence[Samples]) -> tuple[float, float]:
    """Student's interval of the mean of the processes' medians."""
    medians = np.array([np.median(group) for group in groups])
    t = quantile(CONFIDENCE, len(groups) - 1)
    centre = float(medians.mean())
    half = t * float(medians.std(ddof=1)) / math.sqrt(len(groups))
    return centre - half, centre + half


def _raw_drift(group: Samples) -> float:
    """Relative change from the first third's median to the last third's."""
    if group.size < DRIFT_SAMPLES:
        return 0.0
    first, last = (float(np.median(third)) for third in _thirds(group))
    return _relative(last - first, first)


def _thirds(group: Samples) -> tuple[Samples, Samples]:
    """The first and the last third of a run."""
    third = group.size // 3
    return group[:third], group[-third:]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _relative(part: float, whole: float) -> float:
    """``part / whole``; of nothing, nothing is 0 and anything else without bound."""
    if part == 0:
        return 0.0
    return float(part / whole) if whole > 0 else math.copysign(math.inf, part)


def _missed(name: str, figure: float, limit: float) -> tuple[str, ...]:
    """The criterion as text if the figure, of either sign, is beyond the limit."""
    if abs(figure) <= limit:
        return ()
    return (f"{name} {percent(abs(figure), beyond=limit)} > {percent(limit)}",)
