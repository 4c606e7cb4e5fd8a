"""Statistics on known answers and on series whose truth is known."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from layerbench.analysis.statistics import (
    Resampler,
    paired_ratio,
    relative_half_width,
    summarize,
    summarize_rows,
)

TRIALS = 400


def drift(resampler: Resampler, samples) -> float:
    return float(resampler.drifts(samples[None])[0])


def normal(rng, n):
    """Median 1."""
    return 1 + 0.05 * rng.standard_normal(n)


def log_normal(rng, n):
    """Median 1, skewed to the right as times are."""
    return rng.lognormal(0, 0.5, n)


def autoregressive(rng, n, coefficient=0.5):
    """Median 1; each sample is close to the one before, as on a machine with busy neighbours."""
    series = np.empty(n)
    series[0] = rng.standard_normal() / math.sqrt(1 - coefficient**2)
    for index in range(1, n):
        series[index] = coefficient * series[index - 1] + rng.standard_normal()
    return 1 + 0.02 * series


def processes(rng, n, groups=5):
    """Median 1 over all processes; each has an offset of its own."""
    own = [
        0.03 * rng.standard_normal() + 0.02 * rng.standard_normal(n // groups)
        for _ in range(groups)
    ]
    return 1 + np.concatenate(own)


def coverage(series, groups, trials=TRIALS):
    """How often the interval holds the true median, 1."""
    rng = np.random.default_rng(1)
    resampler = Resampler(groups)
    hits = 0
    for _ in range(trials):
        low, high = resampler.median_interval(series(rng, sum(groups)))
        hits += low <= 1 <= high
    return hits / trials


# 400 trials of a true 95 % give 92.9 % to 97.1 % in 95 % of cases; the seed is fixed.
@pytest.mark.parametrize("series", [normal, log_normal])
@pytest.mark.parametrize("n", [20, 300])
def test_coverage_of_independent_samples(series, n):
    assert 0.93 <= coverage(series, [n]) <= 0.98


@pytest.mark.parametrize("series", [normal, log_normal])
def test_few_samples_cover_no_less(series):
    assert coverage(series, [8]) >= 0.93


def test_coverage_of_correlated_samples():
    assert coverage(autoregressive, [300], trials=1000) >= 0.90


def test_coverage_over_processes():
    assert 0.93 <= coverage(processes, [60] * 5) <= 0.98


def test_samples_of_processes_taken_for_one_series_cover_too_little():
    """The reason for asking the spread between processes: without it the interval is wrong."""
    assert coverage(processes, [300]) < 0.70


def test_five_processes_give_students_interval():
    """Medians 1 to 5: mean 3, standard error sqrt(2.5 / 5), t(0.975; 4) = 2.776445."""
    samples = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 3)
    low, high = Resampler([3] * 5).median_interval(samples)
    half = 2.776445105 * math.sqrt(2.5 / 5)
    assert (low, high) == pytest.approx((3 - half, 3 + half))


def test_the_interval_of_processes_contains_the_pooled_median():
    """A process with many samples holds the pooled median away from the mean of medians."""
    samples = np.concatenate([np.full(50, 1.0), [2.0], [2.001]])
    low, high = Resampler([50, 1, 1]).median_interval(samples)
    assert low <= 1.0 <= high
    same = np.concatenate([np.full(50, 5.0), np.full(2, 7.0), np.full(2, 7.0), np.full(2, 7.0)])
    low, high = Resampler([50, 2, 2, 2]).median_interval(same)
    assert low <= 5.0 <= high


@pytest.mark.parametrize(
    ("n", "low", "high"),
    # The sign test's interval: 1st to nth up to 8 samples, 2nd to 8th of 9 (tables of the
    # binomial distribution), and at least that with the bootstrap.
    [(2, 1, 2), (5, 1, 5), (8, 1, 8), (9, 2, 8)],
)
def test_small_samples_use_order_statistics(n, low, high):
    found = Resampler([n]).median_interval(np.arange(1.0, n + 1))
    assert found[0] <= low
    assert found[1] >= high
    assert n == 9 or found == (low, high)


def test_the_bootstrap_median_is_the_median_of_the_resample():
    """The counting shortcut agrees with laying every resample out, odd and even n."""
    from layerbench.analysis.statistics import _block_counts, _resampled_medians

    rng = np.random.default_rng(0)
    for n in (9, 10, 31, 64, 150):
        noise = rng.standard_normal((70, n))
        noise[:, 3] = noise[:, 5]  # a tie
        drifting = np.linspace(1, 9, n)[None]  # a resample's median can be any sample
        rows = np.concatenate([noise, drifting])
        counts = _block_counts(n, rng)
        assert (counts.sum(axis=0) == n).all()
        medians = _resampled_medians(rows, counts)
        for row in (0, 69, 70):
            expected = [np.median(np.repeat(rows[row], column)) for column in counts.T]
            assert medians[row] == pytest.approx(expected)


def test_rows_together_have_the_summaries_that_each_has_alone():
    rng = np.random.default_rng(0)
    for sizes in ([1], [3], [10], [40], [12, 15, 9]):
        resampler = Resampler(sizes, seed=2)
        rows = np.abs(rng.standard_normal((9, sum(sizes)))) * 1e-3
        rows[1] = 0.0
        rows[2] = np.linspace(1e-3, 2e-3, sum(sizes))
        assert summarize_rows(rows, resampler) == [summarize(row, resampler) for row in rows]
    assert summarize_rows(np.empty((0, 3)), Resampler([3])) == []


def test_blocks_are_circular():
    """Every sample is drawn equally often, also the first and the last."""
    from layerbench.analysis.statistics import _block_counts

    counts = _block_counts(50, np.random.default_rng(0))
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.15)


def test_a_long_run_has_an_interval():
    samples = normal(np.random.default_rng(0), 3000)
    low, high = Resampler([3000]).median_interval(samples)
    assert 0.99 < low < high < 1.01


def test_figures_of_a_known_sample():
    samples = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    summary = summarize(samples, Resampler([5]))
    assert summary.n == 5
    assert (summary.mean, summary.median, summary.mad) == (4.0, 3.0, 1.0)
    assert summary.std == pytest.approx(math.sqrt(50 / 4))
    assert (summary.min, summary.max) == (1.0, 10.0)
    assert (summary.p5, summary.p25, summary.p75) == (1.2, 2.0, 4.0)
    assert (summary.p95, summary.p99) == (8.8, 9.76)
    assert (summary.ci_low, summary.ci_high) == (1.0, 10.0)


def test_figures_are_rounded_to_a_tenth_of_a_nanosecond():
    samples = np.full(20, 0.012345678912345)
    assert summarize(samples, Resampler([20])).mean == 0.0123456789


def test_one_sample_says_so():
    summary = summarize(np.array([0.25]), Resampler([1]))
    assert (summary.mean, summary.std, summary.mad) == (0.25, 0.0, 0.0)
    assert (summary.ci_low, summary.ci_high) == (0.25, 0.25)
    assert (summary.verdict, summary.missed) == ("noisy", ("one sample",))
    assert relative_half_width(np.array([0.25]), Resampler([1])) == math.inf


def test_quiet_samples_are_stable():
    samples = 0.01 * (1 + 0.01 * np.random.default_rng(0).standard_normal(300))
    summary = summarize(samples, Resampler([300]))
    assert (summary.verdict, summary.missed) == ("stable", ())


def test_constant_and_zero_samples_are_stable():
    for value in (0.0, 0.003):
        summary = summarize(np.full(300, value), Resampler([300]))
        assert (summary.verdict, summary.ci_low, summary.ci_high) == ("stable", value, value)


def test_wide_quartiles_are_noisy():
    samples = 0.01 * (1 + 0.12 * np.random.default_rng(0).standard_normal(300))
    summary = summarize(samples, Resampler([300]))
    assert summary.verdict == "noisy"
    relative_iqr = (summary.p75 - summary.p25) / summary.median
    assert f"relative IQR {relative_iqr:.0%}".replace("%", " % > 10 %") in summary.missed


def test_a_wide_interval_is_noisy_even_with_narrow_quartiles():
    """Few samples, 6 % apart: the quartiles are fine, the median is not known to 2 %."""
    samples = np.array([1.0, 1.03, 1.06, 1.0, 1.03, 1.06])
    summary = summarize(samples, Resampler([6]))
    assert (summary.verdict, summary.missed) == ("noisy", ("interval half-width 3 % > 2 %",))


def test_processes_are_allowed_a_wider_interval():
    offsets = np.repeat([0.97, 0.99, 1.0, 1.01, 1.03], 20)
    noise = 1 + 0.001 * np.random.default_rng(0).standard_normal(100)
    summary = summarize(offsets * noise, Resampler([20] * 5))
    assert summary.ci_high - summary.ci_low > 2 * 0.02
    assert summary.verdict == "stable"


@pytest.mark.parametrize(("change", "word"), [(0.2, "upward"), (-0.2, "downward")])
def test_a_ramp_is_drifting(change, word):
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(300)
    summary = summarize(np.linspace(1, 1 + change, 300) * noise, Resampler([300]))
    assert summary.verdict == "drifting"
    assert summary.missed[0].startswith(f"{word} drift 1")
    assert summary.missed[0].endswith("% > 5 %")


def test_a_step_is_drifting():
    """Also where the step makes the interval of the whole run as wide as the step."""
    samples = np.repeat([1.0, 1.1], 150) + 0.001 * np.random.default_rng(0).standard_normal(300)
    assert summarize(samples, Resampler([300])).missed[0] == "upward drift 10 % > 5 %"


def test_a_small_drift_is_stable():
    samples = np.linspace(1, 1.03, 300)
    assert summarize(samples, Resampler([300])).verdict == "stable"


def test_pure_noise_is_called_noisy_rather_than_drifting():
    rng = np.random.default_rng(3)
    resampler = Resampler([300])
    verdicts = [summarize(log_normal(rng, 300), resampler).verdict for _ in range(200)]
    assert "stable" not in verdicts
    assert verdicts.count("drifting") <= 4


def test_too_few_samples_for_thirds_do_not_drift():
    assert drift(Resampler([8]), np.linspace(1, 2, 8)) == 0
    assert drift(Resampler([9]), np.linspace(1, 2, 9)) == pytest.approx(0.75 / 1.125)


def test_drift_is_judged_within_each_process():
    """Differences between processes are no drift; the same ramp in every process is."""
    levels = np.repeat([1.0, 1.2, 1.4, 1.6, 1.8], 30)
    assert drift(Resampler([30] * 5), levels) == 0
    assert drift(Resampler([150]), levels) > 0.3
    ramps = np.tile(np.linspace(1, 1.3, 30), 5)
    assert drift(Resampler([30] * 5), ramps) == pytest.approx(0.19, abs=0.02)
    one_of_five = np.concatenate([np.ones(120), np.linspace(1, 1.3, 30)])
    assert drift(Resampler([30] * 5), one_of_five) == 0


def test_paired_ratio_cancels_what_slows_both():
    rng = np.random.default_rng(0)
    shared = log_normal(rng, 300)
    ratio, low, high = paired_ratio(1.05 * shared, shared, Resampler([300]))
    assert (ratio, low, high) == pytest.approx((1.05, 1.05, 1.05))


def test_paired_ratio_of_times_that_did_not_pass():
    zero = np.zeros(9)
    assert paired_ratio(zero, zero, Resampler([9])) == (1, 1, 1)


def test_relative_half_width():
    samples = np.array([0.9, 1.0, 1.1])
    assert relative_half_width(samples, Resampler([3])) == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    samples = log_normal(np.random.default_rng(0), 300)
    first = Resampler([300], seed=5).median_interval(samples)
    assert Resampler([300], seed=5).median_interval(samples) == first
    others = {Resampler([300], seed=seed).median_interval(samples) for seed in range(5)}
    assert len(others) > 1


def test_rows_are_resampled_alike():
    """A row that is twice another has twice its interval."""
    samples = log_normal(np.random.default_rng(0), 300)
    resampler = Resampler([300])
    low, high = resampler.median_interval(samples)
    assert resampler.median_interval(2 * samples) == (2 * low, 2 * high)


@pytest.mark.parametrize("sizes", [[], [0], [3, 0]])
def test_a_plan_needs_samples(sizes):
    with pytest.raises(ValueError, match="at least one sample"):
        Resampler(sizes)


def test_samples_must_fit_the_plan():
    with pytest.raises(ValueError, match="the plan is for 3 samples"):
        summarize(np.ones(4), Resampler([3]))


def test_nothing_loads_scipy():
    code = (
        "import sys, numpy as np\n"
        "from layerbench.analysis.statistics import Resampler, summarize\n"
        "summarize(np.ones(30), Resampler([30]))\n"
        "summarize(np.ones(30), Resampler([15, 15]))\n"
        "assert 'scipy' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
