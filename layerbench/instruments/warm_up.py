"""How long a warm-up lasts: by count on a CPU, until the clock is up on an accelerator.

An accelerator that has nothing to do lowers its clock, to a fifth and less. It raises it again in
some hundred milliseconds of work, in which a small model runs a hundred times
(docs/decisions/0035).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from layerbench.records.conditions import WarmUp

if TYPE_CHECKING:
    from layerbench.environment.devices import Device

LEAST_S = 1.0
LONGEST_S = 10.0
# The medians of the last two windows agree where they are no further apart.
AGREEMENT = 0.01
# A window is so long, but holds at least so many rounds.
WINDOW_S = 0.25
FEWEST = 5


class WarmingUp:
    """Says after each round of a warm-up whether another is needed.

    Args:
        device: that is warmed up; ``None`` counts as a CPU.
        rounds: on a CPU, that many; on an accelerator, at least as many, but 0 for none at all.
        now: seconds, for tests.
    """

    def __init__(
        self, device: Device | None, rounds: int, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._by_time = device is not None and device.kind != "cpu" and rounds > 0
        self._rounds = rounds
        self._now = now
        self._began = now()
        self._ends: list[float] = []
        self._times: list[float] = []

    def add(self, duration: float) -> None:
        """A round is over.

        Args:
            duration: that the device took for the same work in each round, in any unit.
        """
        self._ends.append(self._now())
        self._times.append(duration)

    @property
    def done(self) -> int:
        """Rounds so far."""
        return len(self._times)

    @property
    def total(self) -> int:
        """Rounds that it will be, as far as is known."""
        return max(self._rounds, self.done + (not self.is_over))

    @property
    def is_over(self) -> bool:
        """Whether no further round is needed."""
        if self.done < self._rounds:
            return False
        return not self._by_time or self._spent_s >= LONGEST_S or self._is_steady

    @property
    def taken(self) -> WarmUp | None:
        """What it was; ``None`` on a CPU, and where there was none."""
        if not self._by_time:
            return None
        return WarmUp(rounds=self.done, seconds=round(self._spent_s, 3), steady=self._is_steady)

    @property
    def _spent_s(self) -> float:
        return self._ends[-1] - self._began if self._ends else 0.0

    @property
    def _is_steady(self) -> bool:
        """Whether it has lasted long enough, and the last two windows are alike."""
        if self._spent_s < LEAST_S:
            return False
        window = max(FEWEST, self._rounds_within(WINDOW_S))
        if self.done < 2 * window:
            return False
        before = median(self._times[-2 * window : -window])
        after = median(self._times[-window:])
        return abs(after - before) <= AGREEMENT * min(after, before)

    def _rounds_within(self, seconds: float) -> int:
        begin = self._ends[-1] - seconds
        return len(self._ends) - bisect_left(self._ends, begin)
