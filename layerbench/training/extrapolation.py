"""From some measured steps of a training to the duration of all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis.student_t import quantile
from layerbench.errors import UsageError
from layerbench.records.timing import Summary
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import STEP_PHASES
from layerbench.training import step_statistics
from layerbench.units import NANOSECOND

Thing = TypeVar("Thing")

CONFIDENCE = 0.95
# Neighbouring steps are alike: so many together count as one observation.
BLOCK = 5
# The measurement is divided into about so many blocks where it has more steps than that takes.
BLOCKS = 10
# How far a machine's speed moves between the measurement and the training, at least: the standard
# deviation of the logarithm. Where it moved more while it was measured, it will move so again.
DRIFT = 0.03
DATA = STEP_PHASES.index("data")


class Started(Generic[Thing]):
    """A loader that notes how long it takes to begin."""

    def __init__(self, loader: Iterable[Thing]) -> None:
        self._loader = loader
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[Thing]:
        begins = time.perf_counter()
        iterator = iter(self._loader)
        self.seconds.append(time.perf_counter() - begins)
        return iterator


@dataclass(frozen=True)
class Measured:
    """What ran.

    Attributes:
        steps: nanoseconds by phase.
        firsts: numbers of the steps that began an epoch.
        starts_s: seconds that the loader took to begin, for each epoch.
        between_s: seconds between steps, all together.
    """

    steps: list[tuple[int, ...]]
    firsts: list[int]
    starts_s: list[float]
    between_s: float


@dataclass(frozen=True)
class Figured:
    """What the measurement says of steps to come.

    Attributes:
        steps: nanoseconds by phase of those that count; the ``warmup`` before them do not.
        step: their distribution.
        between_s, start_s, once_s: as in the record.
    """

    steps: list[tuple[int, ...]]
    step: Summary
    warmup: int
    between_s: float
    start_s: float
    once_s: float

    @classmethod
    def of(cls, measured: Measured, warmup: int) -> Figured:
        """Without the warm-up, and without the waits of an epoch's first batch."""
        steps, waits = _without_first_waits(measured)
        counted = steps[warmup:]
        step = step_statistics.step_summary(counted)
        if step is None:
            raise UsageError("no step was measured: take at least 1 besides the warm-up")
        excess = sum(sum(one) * NANOSECOND - step.mean for one in steps[:warmup])
        return cls(
            steps=counted,
            step=step,
            warmup=warmup,
            between_s=measured.between_s / len(steps),
            start_s=(sum(measured.starts_s) + waits) / len(measured.firsts),
            once_s=max(0.0, excess),
        )


def _without_first_waits(measured: Measured) -> tuple[list[tuple[int, ...]], float]:
    """Steps with a usual wait for data in the first of each epoch; the seconds taken out."""
    usual = round(float(np.median([step[DATA] for step in measured.steps])))
    steps = list(measured.steps)
    taken = 0
    for first in measured.firsts:
        wait = max(0, steps[first][DATA] - usual)
        steps[first] = (*steps[first][:DATA], steps[first][DATA] - wait, *steps[first][DATA + 1 :])
        taken += wait
    return steps, taken * NANOSECOND


def extrapolated(
    figured: Figured, steps: int, validation_s: float, epochs: int
) -> tuple[Seconds, Seconds]:
    """An epoch, and all of them with what comes once.

    The interval holds two errors, taken as independent. The machine's speed moves, in seconds and
    in minutes: what means over blocks of steps (batch means: Law & Kelton) spread by is how far
    all of the measurement, being of one moment, may be from another. And from one minute to
    the next it moves by `DRIFT` besides.

    Args:
        figured: what was measured.
        steps: of an epoch.
        validation_s: of an epoch.
        epochs: of the training.
    """
    times = np.array([sum(step) for step in figured.steps]) * NANOSECOND
    mean = float(times.mean()) + figured.between_s
    epoch = figured.start_s + steps * mean + validation_s
    total = figured.once_s + epochs * epoch
    return (
        with_error(epoch, times, mean),
        with_error(total, times, mean),
    )


def with_error(value: float, times: NDArray[np.float64], mean: float) -> Seconds:
    """A duration with the bounds that its measurement allows; see `extrapolated`.

    Args:
        value: seconds, proportional to ``mean``.
        times: seconds, that the mean is of, in the order in which they were measured.
        mean: of them, and of what goes with each.
    """
    spread, blocks = block_spread(times)
    error = math.hypot(spread / mean, DRIFT)
    half = quantile(CONFIDENCE, max(1, blocks - 1)) * error
    return Seconds(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def block_spread(times: NDArray[np.float64]) -> tuple[float, int]:
    """The standard deviation of means over blocks of steps, and how many blocks there are.

    Args:
        times: of steps, in the order in which they were measured.
    """
    # Of many short steps a few steps' mean says nothing of the machine, only of themselves.
    length = max(BLOCK, len(times) // BLOCKS)
    blocks = len(times) // length
    if blocks < 2:
        # Of so few steps nothing is known about their likeness: each counts as a block.
        return (float(times.std(ddof=1)) if len(times) > 1 else float(times.mean())), len(times)
    means = times[: blocks * length].reshape(blocks, length).mean(axis=1)
    return float(means.std(ddof=1)), blocks
