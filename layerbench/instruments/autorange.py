"""Call something as often as a time allows, and less often where each call takes long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Autorange:
    """How many calls there are at least and at most.

    Attributes:
        fewest, most: of calls that are not slow.
        slow_s: seconds from which on a call is slow.
        slow_fewest: of those, this many have to do.
    """

    fewest: int
    most: int
    slow_s: float = math.inf
    slow_fewest: int = 1

    def is_slow(self, call_s: float) -> bool:
        """Whether few calls have to do.

        Args:
            call_s: seconds of one.
        """
        return call_s > self.slow_s

    def count(self, call_s: float, budget_s: float, *, slow: bool = False) -> int:
        """How many calls fit into a time.

        Args:
            call_s: seconds that one is expected to take.
            budget_s: seconds for all of them.
            slow: whether few have to do.
        """
        fits = budget_s / call_s if call_s > 0 else math.inf
        return int(min(max(fits, self._fewest(slow)), self.most))

    def enough(self, calls: int, spent_s: float, budget_s: float, *, slow: bool = False) -> bool:
        """Whether no further call is needed.

        Args:
            calls: made so far.
            spent_s: seconds that they took.
            budget_s: seconds for all of them.
            slow: whether few have to do.
        """
        return calls >= self._fewest(slow) and (spent_s >= budget_s or calls >= self.most)

    def repeat(
        self,
        call: Callable[[], Result],
        budget_s: float,
        *,
        slow: bool = False,
        seconds_of: Callable[[Result], float] | None = None,
        longest_s: float = math.inf,
    ) -> list[Result]:
        """Call until the time is over, once at least; returns the result of each call.

        Args:
            call: what is repeated.
            budget_s: seconds for all of them.
            slow: whether few have to do.
            seconds_of: what counts of a call, by what it gave; else the clock on the wall.
            longest_s: by the clock on the wall no call begins later, however few there were.
        """
        began, spent_s = perf_counter(), 0.0
        results: list[Result] = []
        while not self.enough(len(results), spent_s, budget_s, slow=slow):
            results.append(call())
            on_the_wall_s = perf_counter() - began
            spent_s = on_the_wall_s if seconds_of is None else spent_s + seconds_of(results[-1])
            if on_the_wall_s >= longest_s:
                break
        return results

    def _fewest(self, slow: bool) -> int:
        return self.slow_fewest if slow else self.fewest
