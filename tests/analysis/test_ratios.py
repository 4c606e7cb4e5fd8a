from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerbench.analysis import ratios
from layerbench.analysis.ratios import LogRatio

BEFORE = [1.00, 1.04, 0.97, 1.01, 1.02]
AFTER = [1.13, 1.09, 1.16, 1.10]


def test_two_groups_as_scipy_compares_their_logarithms():
    found = ratios.of_groups(BEFORE, AFTER)
    expected = stats.ttest_ind(np.log(AFTER), np.log(BEFORE), equal_var=False)
    assert found.df == math.floor(expected.df * 10) / 10
    half = stats.t.ppf(0.975, found.df) * found.scale
    centre = np.mean(np.log(AFTER)) - np.mean(np.log(BEFORE))
    assert found.interval() == pytest.approx((math.exp(centre - half), math.exp(centre + half)))
    assert found.scale == pytest.approx(centre / expected.statistic)
    assert found.p_beyond(0) == pytest.approx(2 * stats.t.sf(expected.statistic, found.df))
    assert found.ratio == pytest.approx(stats.gmean(AFTER) / stats.gmean(BEFORE))


def test_one_group_of_ratios_as_scipy_does():
    found = ratios.of_processes(AFTER)
    expected = stats.ttest_1samp(np.log(AFTER), 0)
    assert found.interval() == pytest.approx(tuple(np.exp(expected.confidence_interval(0.95))))
    assert found.p_beyond(0) == pytest.approx(expected.pvalue)


def test_the_ratio_the_other_way_round_is_the_inverse():
    there, back = ratios.of_groups(BEFORE, AFTER), ratios.of_groups(AFTER, BEFORE)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.interval() == pytest.approx(tuple(1 / end for end in reversed(back.interval())))
    assert there.p_beyond(0.03) == back.p_beyond(0.03)


def test_an_interval_comes_back_as_it_was():
    found = ratios.of_interval(1.2, 1.1, 1.1 * (1.2 / 1.1) ** 2)
    assert found.interval() == pytest.approx((1.1, 1.1 * (1.2 / 1.1) ** 2))


def test_beyond_a_margin():
    """A centre of 0.1 and a margin of 0.05 leave 2.5 standard errors of 0.02."""
    found = LogRatio(0.1, 0.02, math.inf)
    assert found.p_beyond(0.05) == pytest.approx(stats.norm.sf(2.5) + stats.norm.sf(7.5))
    assert found.p_beyond(0.1) == pytest.approx(0.5, abs=1e-6)
    assert LogRatio(0.1, 0, math.inf).p_beyond(0.05) == 0
    assert LogRatio(0.04, 0, math.inf).p_beyond(0.05) == 1
    slower = LogRatio(0.1, 0.02, 4)
    assert slower.p_beyond(0.05) > found.p_beyond(0.05)


def test_two_errors_add_up():
    """Of equal size with 4 and 4 degrees of freedom they are one of root 2 with 8."""
    found = LogRatio(0.1, 0.01, 4).plus(0.01, 4)
    assert (found.centre, found.scale, found.df) == pytest.approx((0.1, 0.01 * 2**0.5, 8))
    assert LogRatio(0.1, 0.01, 4).plus(0, 5) == LogRatio(0.1, 0.01, pytest.approx(4))
    assert LogRatio(0.1, 0.03, math.inf).plus(0.01, 5).df == pytest.approx(500)


def test_no_spread_at_all():
    assert ratios.of_groups([1.0, 1.0], [2.0, 2.0]).interval() == pytest.approx((2, 2))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.inf]])
def test_values_without_a_logarithm_or_a_spread(values):
    with pytest.raises(ValueError, match=r"spread|positive"):
        ratios.of_processes(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_what_is_rejected_is_by_holms_adjusted_p_values(p_values, rate):
    """Each is the largest, so far, of p times how many are not smaller (Holm 1979)."""
    adjusted, largest = {}, 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, p_values[index] * (len(p_values) - rank))
        adjusted[index] = largest
    found = ratios.rejected(p_values, rate)
    for index, one in adjusted.items():  # but for roundings right at the border
        assert abs(one - rate) < 1e-9 or found[index] == (one <= rate)


def test_nothing_is_rejected_of_nothing():
    assert ratios.rejected([], 0.05) == []


def test_where_all_is_true_few_families_have_a_rejection():
    """Of 2000 families of 50 true hypotheses, at most about 5 %."""
    draw = np.random.default_rng(0)
    alarms = sum(any(ratios.rejected(list(draw.random(50)), 0.05)) for _ in range(2000))
    assert 0.03 < alarms / 2000 < 0.06


def test_processes_that_state_their_errors():
    """Alike, they are known as stated, by root n better; far apart, by their own spread."""
    alike = ratios.of_estimates([LogRatio(0.1, 0.02, 9)] * 4)
    assert (alike.centre, alike.df) == pytest.approx((0.1, 7))
    assert alike.scale == pytest.approx(0.02 / 2 * (4 / 7) ** 0.5)
    apart = ratios.of_estimates([LogRatio(centre, 1e-9, 9) for centre in (-0.3, -0.1, 0.1, 0.3)])
    assert apart.scale == pytest.approx((0.2 / 7 / 4) ** 0.5)
    assert ratios.of_estimates([LogRatio(0.1, 0.02, 9)]) == LogRatio(0.1, 0.02, 9)
