"""Student's distribution: its tail and its quantiles.

SciPy has both, and takes longer to import than comparing two records does; the tests hold these
against it.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

_NORMAL = NormalDist()
_TINY = 1e-300
_PRECISION = 1e-15
_MOST_TERMS = 10_000
_MOST_STEPS = 100
# From here on the two distributions agree in the first six digits of any quantile used here.
_NEARLY_NORMAL = 1e7


def upper_tail(t: float, df: float) -> float:
    """The probability of a value above ``t``.

    By the incomplete beta function: for ``t >= 0`` it is half of I_x(df/2, 1/2) with
    x = df / (df + t^2) (Abramowitz & Stegun 26.7.1).

    Args:
        t: any number.
        df: degrees of freedom, positive; infinite for the normal distribution.
    """
    if df > _NEARLY_NORMAL:
        return 0.5 * math.erfc(t / math.sqrt(2))
    if t < 0:
        return 1 - upper_tail(-t, df)
    square = t * t
    if math.isinf(square):
        return 0.0
    return 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + square), square / (df + square))


@functools.cache
def quantile(confidence: float, df: float) -> float:
    """What a two-sided interval reaches on each side, in standard errors: 1.96 for 95 %.

    Newton's method on logarithms, in which the tail is nearly a straight line, from the normal
    distribution's quantile.
    """
    outside = (1 - confidence) / 2
    t = _NORMAL.inv_cdf(1 - outside)
    if df > _NEARLY_NORMAL:
        return t
    for _ in range(_MOST_STEPS):
        tail = upper_tail(t, df)
        step = math.log(tail / outside) * tail / (t * _density(t, df))
        t *= math.exp(step)
        if abs(step) < 1e-12:
            break
    return t


def _density(t: float, df: float) -> float:
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    return scale * math.exp(-(df + 1) / 2 * math.log1p(t * t / df))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularized incomplete beta function I_x(a, b); ``rest`` is 1 - x, given exactly."""
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log(rest) - log_beta)
    # The fraction converges fast on one side of the distribution's mean; the other is its mirror.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        value *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value or _TINY
