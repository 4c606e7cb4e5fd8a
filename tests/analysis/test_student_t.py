"""Held against SciPy's, over all the degrees of freedom that a comparison can come to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtr, stdtrit
from scipy.stats import norm

from layerbench.analysis import student_t

DEGREES = [0.5, 1, 1.7, 2, 3, 4, 7.9, 8, 30, 299, 5_000, 1e6, 1e8]


@given(st.floats(-6, 6), st.sampled_from(DEGREES))
def test_the_tail_is_scipys(t, df):
    assert student_t.upper_tail(t, df) == pytest.approx(stdtr(df, -t), rel=1e-5)


@given(st.floats(0, 1e6), st.sampled_from(DEGREES[:8]))
def test_far_out_too_where_it_is_heavy(t, df):
    assert student_t.upper_tail(t, df) == pytest.approx(stdtr(df, -t), rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("df", DEGREES)
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.9999])
def test_the_quantile_is_scipys(df, confidence):
    expected = stdtrit(df, (1 + confidence) / 2)
    assert student_t.quantile(confidence, df) == pytest.approx(expected, rel=1e-6)


def test_without_end_it_is_the_normal_distribution():
    assert student_t.quantile(0.95, math.inf) == pytest.approx(norm.ppf(0.975))
    assert student_t.upper_tail(2.5, math.inf) == pytest.approx(norm.sf(2.5))
    assert student_t.upper_tail(-1, math.inf) == pytest.approx(norm.sf(-1))


def test_values_from_a_table():
    """Fisher & Yates, two-sided 5 %: 12.706, 2.776, 2.306."""
    assert [round(student_t.quantile(0.95, df), 3) for df in (1, 4, 8)] == [12.706, 2.776, 2.306]


def test_the_ends():
    assert student_t.upper_tail(0, 4) == pytest.approx(0.5)
    assert student_t.upper_tail(math.inf, 4) == 0
    assert student_t.upper_tail(-math.inf, 4) == 1
    assert student_t.upper_tail(1e200, 4) == 0
