"""How long a training takes, estimated from some of its steps.

The one place for how many steps are measured, what they say of all others, and how sure that is:
the verbs ``estimate training-time`` and ``estimate detection``, their functions in Python, and the
service answer from here. Loads no torch.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis.student_t import quantile
from layerbench.environment.conditions import ConditionsWatch
from layerbench.errors import UsageError
from layerbench.instruments.autorange import Autorange
from layerbench.instruments.warm_up import WarmingUp
from layerbench.records.timing import Summary
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import STEP_PHASES
from layerbench.training import step_statistics
from layerbench.units import NANOSECOND

if TYPE_CHECKING:
    from layerbench.environment.devices import Device

Thing = TypeVar("Thing")
Times = NDArray[np.float64]

CONFIDENCE = 0.95
# Where the first step takes so many seconds, few of them have to do.
SLOW_S = 20.0
SLOW_WARMUP, SLOW_STEPS = 1, 2
# Of a set with few steps an epoch, the measurement takes so many epochs at most.
MOST_EPOCHS = 1000
# Neighbouring steps are alike: so many together count as one observation.
BLOCK = 5
# The measurement is divided into about so many blocks where it has more steps than that takes.
BLOCKS = 10
# How far a machine's speed moves between the measurement and the training, at least: the standard
# deviation of the logarithm. Where it moved more while it was measured, it will move so again.
DRIFT = 0.03
# How far runs are apart from one process to the next, besides: the standard deviation of the
# logarithm (docs/benchmarks.md, "The service").
APART = 0.10
# The normal distribution's 97.5th percentile.
NORMAL = 1.96
DATA = STEP_PHASES.index("data")


# --- how many steps are measured -----------------------------------------------------------


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
        warmup: how many of the steps do not count.
    """

    steps: list[tuple[int, ...]]
    firsts: list[int]
    starts_s: list[float]
    between_s: float
    warmup: int = 0


class Trial:
    """The beginning of a training, whose steps are counted until there are enough.

    Args:
        warmup: steps that do not count, at least; on an accelerator as many as `WarmingUp` wants.
        steps: the fewest that do.
        seconds: that the counted ones take at least, with what lies between them.
        device: where it trains; ``None`` warms up by count.
        conditions: of the device, looked at between the steps that count; keeps the warm-up.

    Attributes:
        steps: nanoseconds by phase, so far.
        is_slow: whether few have to do, as each takes long.
    """

    def __init__(
        self,
        warmup: int,
        steps: int,
        seconds: float,
        device: Device | None = None,
        conditions: ConditionsWatch | None = None,
    ) -> None:
        self._conditions = conditions or ConditionsWatch()
        self._warming = WarmingUp(device, warmup)
        self._warmup = warmup  # as far as is known
        self._seconds = seconds
        self._firsts: list[int] = []
        self._begins = self._counted_from = time.perf_counter()
        self._range = Autorange(steps, sys.maxsize, SLOW_S, min(SLOW_STEPS, steps))
        self.is_slow = False
        self.steps: list[tuple[int, ...]] = []

    def epochs(self) -> Iterator[int]:
        """Numbers of epochs from 1, as many as it takes."""
        for epoch in range(1, MOST_EPOCHS + 1):
            self._firsts.append(len(self.steps))
            yield epoch
            if self.enough:
                return

    def see(self, epoch: Sequence[Sequence[int]]) -> bool:
        """Count the new steps of this epoch; returns whether there are enough now."""
        return self.add(epoch[len(self.steps) - self._firsts[-1] :])

    def add(self, steps: Iterable[Sequence[int]]) -> bool:
        """Count further steps; returns whether there are enough now.

        Args:
            steps: nanoseconds by phase.
        """
        for phases in steps:
            self.steps.append(tuple(map(int, phases)))
            if len(self.steps) == 1 and self._range.is_slow(sum(phases) * NANOSECOND):
                self.is_slow = True
                self._warmup = min(SLOW_WARMUP, self._warmup)
            elif not self.is_slow:
                self._see_warm_up(phases)
            if len(self.steps) == self._warmup:
                self._counted_from = time.perf_counter()
        if self.is_warm:
            self._conditions.take()
        return self.enough

    def _see_warm_up(self, phases: Sequence[int]) -> None:
        """A step of the warm-up is over: how many there will be, as far as is known."""
        if self._warming.is_over:
            return
        # How long data is waited for says nothing of the device.
        self._warming.add(sum(phases) - phases[DATA])
        self._warmup = self._warming.total
        if self._warming.is_over:
            self._conditions.add_warm_up(self._warming.taken)

    @property
    def fewest(self) -> int:
        """Steps that are needed in any case, the warm-up among them."""
        return self._warmup + (self._range.slow_fewest if self.is_slow else self._range.fewest)

    @property
    def is_warm(self) -> bool:
        """Whether the steps to come count."""
        return len(self.steps) >= self._warmup

    @property
    def enough(self) -> bool:
        """Whether no further step is needed."""
        spent_s = time.perf_counter() - self._counted_from
        counted = len(self.steps) - self._warmup
        return self._range.enough(counted, spent_s, self._seconds, slow=self.is_slow)

    def measured(self, starts_s: list[float]) -> Measured:
        """All steps.

        Args:
            starts_s: seconds that the loader took to begin, for each epoch.
        """
        wall = time.perf_counter() - self._begins
        inside = sum(map(sum, self.steps)) * NANOSECOND
        between = max(0.0, wall - inside - sum(starts_s))
        return Measured(self.steps, self._firsts or [0], starts_s, between, self._warmup)


# --- what they say -------------------------------------------------------------------------


@dataclass(frozen=True)
class StepFigures:
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
    def of(cls, measured: Measured) -> StepFigures:
        """Without the warm-up, and without the waits of an epoch's first batch."""
        steps, waits = _without_first_waits(measured)
        counted = steps[measured.warmup :]
        step = step_statistics.step_summary(counted)
        if step is None:
            raise UsageError("no step was measured: take at least 1 besides the warm-up")
        excess = sum(sum(one) * NANOSECOND - step.mean for one in steps[: measured.warmup])
        return cls(
            steps=counted,
            step=step,
            warmup=measured.warmup,
            between_s=measured.between_s / len(steps),
            start_s=(sum(measured.starts_s) + waits) / len(measured.firsts),
            once_s=max(0.0, excess),
        )

    def phase(self, name: str) -> Seconds:
        """The mean of a phase, with its bounds."""
        times = [step[STEP_PHASES.index(name)] for step in self.steps]
        return mean_time(np.array(times))

    def training(self, steps: int, validation_s: float, epochs: int) -> tuple[Seconds, Seconds]:
        """An epoch, and all of them with what comes once.

        Args:
            steps: of an epoch.
            validation_s: of an epoch.
            epochs: of the training.
        """
        times = np.array([sum(step) for step in self.steps]) * NANOSECOND
        mean = float(times.mean()) + self.between_s
        durations = duration(
            epochs, steps, mean, start_s=self.start_s, validation_s=validation_s, once_s=self.once_s
        )
        epoch, total = (with_error(value, times, mean) for value in durations)
        return epoch, total


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


def duration(
    epochs: int,
    steps: int,
    step_s: float,
    *,
    start_s: float = 0.0,
    validation_s: float = 0.0,
    once_s: float = 0.0,
) -> tuple[float, float]:
    """Seconds of an epoch, and of all of them with what comes once.

    Args:
        epochs: of the training.
        steps: of an epoch.
        step_s: seconds of what counts of a step.
        start_s, validation_s: seconds, for each epoch.
        once_s: seconds, for the training.
    """
    epoch = start_s + steps * step_s + validation_s
    return epoch, once_s + epochs * epoch


# --- how sure that is ----------------------------------------------------------------------


def mean_time(nanoseconds: NDArray[np.int64]) -> Seconds:
    """The mean of times in the order in which they were measured, with its bounds."""
    times = nanoseconds.astype(np.float64) * NANOSECOND
    mean = float(times.mean())
    return with_error(mean, times, mean)


def with_error(value: float, times: Times, mean: float) -> Seconds:
    """A duration with the bounds that its measurement allows.

    The interval holds errors taken as independent. The machine's speed moves, in seconds and in
    minutes: what means over blocks of steps (batch means: Law & Kelton) spread by is how far all
    of the measurement, being of one moment, may be from another. From one minute to the next it
    moves by `DRIFT` besides. And the process that trains is another one, as far from this one as
    `APART` says.

    Args:
        value: seconds, proportional to ``mean``.
        times: seconds, that the mean is of, in the order in which they were measured.
        mean: of them, and of what goes with each.
    """
    if mean <= 0:
        return Seconds(value=value, low=value, high=value)
    spread, blocks = block_spread(times)
    moment = quantile(CONFIDENCE, max(1, blocks - 1)) * math.hypot(spread / mean, DRIFT)
    half = math.hypot(moment, of_two_processes(APART))
    return Seconds(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def of_two_processes(deviation: float) -> float:
    """Half of a 95 % interval, of the logarithm, for what another process finds.

    The process that was measured is as far from the usual as the other may be.

    Args:
        deviation: standard deviation of the logarithm, from process to process.
    """
    return NORMAL * math.sqrt(2) * deviation


def block_spread(times: Times) -> tuple[float, int]:
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


# --- what is assumed -----------------------------------------------------------------------


def assumptions(
    samples: int, steps: int, batch: int, workers: int | None, others: Iterable[str]
) -> tuple[str, ...]:
    """What an estimate takes for granted, one sentence each.

    Args:
        samples, steps: images and steps of an epoch.
        batch: images of a step.
        workers: further processes that load images; ``None`` where nothing is loaded.
        others: sentences on data, memory and what is left out.
    """
    return (
        f"All epochs are alike: {steps} steps of {batch} images; {samples - steps * batch} left "
        "over are not trained on.",
        _processes(workers),
        *others,
        "The machine is as busy as now: its speed moves as it did during the measurement, and by "
        f"{DRIFT:.0%} besides (standard deviation); from process to process by {APART:.0%}.",
    )


def _processes(workers: int | None) -> str:
    if workers is None:
        return "One process."
    if workers:
        return f"One process; {workers} further ones load images."
    return "One process, which loads its images itself."


def check_samples(samples: int, batch: int) -> None:
    """Refuse an epoch without a step.

    Raises:
        UsageError: there are fewer images than one batch has.
    """
    if samples < batch:
        raise UsageError(
            f"{samples} images are fewer than one batch of {batch}: raise --samples or lower "
            "--batch"
        )
