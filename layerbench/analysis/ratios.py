"""Ratios of two measurements: their uncertainty, and which of many are changes.

Everything is done on logarithms: a ratio of 2 and one of 1/2 are equally far from 1, and times,
which are positive and skewed, come out nearly symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerbench.analysis.student_t import quantile, upper_tail

CONFIDENCE = 0.95
# The logarithm of a ratio that nobody tells from a greater one: 1e100, nearly.
LARGEST = 230.0
# The errors that processes state are worth so many further processes.
STATED_DF = 4.0


@dataclass(frozen=True)
class LogRatio:
    """An estimate of the natural logarithm of a ratio.

    Attributes:
        centre: the estimate.
        scale: its standard error.
        df: degrees of freedom of Student's distribution that the error follows in units of
            ``scale``; infinite for a normal one.
    """

    centre: float
    scale: float
    df: float

    @property
    def ratio(self) -> float:
        """The estimated ratio."""
        return _exponential(self.centre)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Bounds of the ratio."""
        half = quantile(confidence, self.df) * self.scale
        return _exponential(self.centre - half), _exponential(self.centre + half)

    def p_beyond(self, margin: float) -> float:
        """How likely so large a ratio would be if the true one were within the margin.

        The p-value of the composite hypothesis that the logarithm lies in [-margin, margin]
        (a test for a minimal effect: Murphy & Myors 1999). A margin of 0 gives the usual
        two-sided p-value.
        """
        size = abs(self.centre)
        if self.scale == 0:
            return 0.0 if size > margin else 1.0
        tails = (upper_tail((size + sign * margin) / self.scale, self.df) for sign in (-1, 1))
        return min(1.0, sum(tails))

    def plus(self, scale: float, df: float) -> LogRatio:
        """The same with another, independent error added to it.

        The degrees of freedom are those of Satterthwaite (1946).
        """
        total = math.hypot(self.scale, scale)
        if total == 0:
            return self
        freedom = self.scale**4 / self.df + scale**4 / df
        return LogRatio(self.centre, total, total**4 / freedom if freedom else math.inf)


def of_groups(baseline: Sequence[float], contender: Sequence[float]) -> LogRatio:
    """The ratio of two groups of times, each time from a process of its own.

    Welch's comparison of the means of logarithms, with the degrees of freedom of Welch and
    Satterthwaite (Welch 1947), rounded down to a tenth: the two groups may be noisy to different
    degrees.

    Args:
        baseline, contender: seconds, at least two each.

    Raises:
        ValueError: fewer than two times in a group, or one that is not positive.
    """
    before, after = _logarithms(baseline), _logarithms(contender)
    first, second = (_variance(group) / len(group) for group in (before, after))
    centre = _mean(after) - _mean(before)
    total = first + second
    if total == 0:
        return LogRatio(centre, 0.0, math.inf)
    df = total**2 / (first**2 / (len(before) - 1) + second**2 / (len(after) - 1))
    # Down to a tenth, so that the rows of a record share a few quantiles; 8 less a rounding is 8.
    return LogRatio(centre, math.sqrt(total), math.floor(df * 10 + 1e-6) / 10)


def of_processes(ratios: Sequence[float]) -> LogRatio:
    """The ratio from several processes that each measured both sides.

    Args:
        ratios: one from each process, at least two.

    Raises:
        ValueError: fewer than two ratios, or one that is not positive.
    """
    logarithms = _logarithms(ratios)
    scale = math.sqrt(_variance(logarithms) / len(logarithms))
    return LogRatio(_mean(logarithms), scale, len(logarithms) - 1)


def of_interval(ratio: float, low: float, high: float) -> LogRatio:
    """A ratio known by its 95 % interval alone; its error is assumed to be normal.

    Raises:
        ValueError: not three positive numbers.
    """
    for value in (ratio, low, high):
        _check_positive(value)
    half = math.log(high / low) / 2
    return LogRatio(math.log(ratio), half / quantile(CONFIDENCE, math.inf), math.inf)


def of_estimates(estimates: Sequence[LogRatio]) -> LogRatio:
    """The ratio from those that several processes found, each with its own error.

    The variance between processes is that which is seen, moderated by the errors that they state
    (Smyth 2004): of a few processes it is known badly.

    Args:
        estimates: at least one; a single one is given back.
    """
    if len(estimates) == 1:
        return estimates[0]
    count = len(estimates)
    centre = _mean([one.centre for one in estimates])
    stated = _mean([one.scale**2 for one in estimates])
    seen = math.fsum((one.centre - centre) ** 2 for one in estimates)
    df = STATED_DF + count - 1
    return LogRatio(centre, math.sqrt((STATED_DF * stated + seen) / df / count), df)


def rejected(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses to reject so that any true one is among them with probability ``rate``.

    Holm (1979); holds however the tests depend on each other, as those of a layer and of the block
    that contains it do.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    among = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > rate / (len(p_values) - rank):
            break
        among[index] = True
    return among


def _exponential(logarithm: float) -> float:
    """Never 0 and never infinite: a spread may be known so badly that its interval is."""
    return math.exp(min(max(logarithm, -LARGEST), LARGEST))


def _logarithms(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        raise ValueError(f"one value has no spread: got {len(values)}")
    for value in values:
        _check_positive(value)
    return [math.log(value) for value in values]


def _check_positive(value: float) -> None:
    if not value > 0 or math.isinf(value):
        raise ValueError(f"a time or ratio must be positive and finite, got {value}")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """With the divisor n - 1."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
