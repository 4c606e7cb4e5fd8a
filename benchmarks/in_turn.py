"""Two works run in turn in one process, so that a machine whose speed moves, moves for both.

And how far an estimate is from what then happened.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

HEAPS = "MALLOC_ARENA_MAX"
HEADER = ["case", "epoch, s", "errors", "median |error|", "interval holds", "its width"]


@dataclass(frozen=True)
class Trial:
    """One estimate and the epoch that followed, seconds."""

    estimate: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.estimate / self.measured - 1

    @property
    def held(self) -> bool:
        """Whether the measured epoch lies in the interval."""
        return self.low <= self.measured <= self.high


def figures_of(trials: list[Trial]) -> list[str]:
    errors = [trial.error for trial in trials]
    widths = [(trial.high - trial.low) / trial.estimate for trial in trials]
    return [
        f"{statistics.median(trial.measured for trial in trials):.1f}",
        f"{min(errors):+.1%} to {max(errors):+.1%}",
        f"{statistics.median(map(abs, errors)):.1%}",
        f"{sum(trial.held for trial in trials)} of {len(trials)}",
        f"{statistics.median(widths):.0%}",
    ]


def on_one_heap() -> None:
    """Begin this program again with one heap for all threads, unless it has been.

    glibc gives each thread a heap of its own, and these return memory to the system at different
    moments: of two equal trainings in two threads one was steadily up to 15 % slower. A training
    of its own runs on the main heap.
    """
    if os.environ.get(HEAPS) != "1":
        os.environ[HEAPS] = "1"
        os.execv(sys.executable, sys.orig_argv)


def in_turn(first: Callable[..., Any], second: Callable[..., Any]) -> tuple[Any, Any, Turns]:
    """What both give, and how long each waited for the other.

    Each is called with ``progress``, in a thread of its own; of the threads one runs at a time.
    """
    turns = Turns()
    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(turns.taken, side, work) for side, work in enumerate((first, second))]
        one, two = (job.result() for job in jobs)
    return one, two, turns


@dataclass
class Waits:
    """How often, and how long, a side waited for its turn."""

    times: int = 0
    seconds: float = 0.0


class Turns:
    """Lets two threads run in turn: each gives way when it reports progress.

    Attributes:
        waited: for each side, its waits while it stepped and while it validated.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._ended = [False, False]
        self.waited = [(Waits(), Waits()) for _ in self._ended]

    def taken(self, side: int, work: Callable[..., Any], *given: object) -> Any:
        """Do a side's work."""
        try:
            self._wait(side)
            return work(*given, progress=Giving(self, side))
        finally:
            with self._changed:
                self._ended[side] = True
                self._running = 1 - side
                self._changed.notify_all()

    def give(self, side: int, doing: str) -> None:
        """Let the other side run, and wait until it gives back."""
        begins = time.perf_counter()
        with self._changed:
            self._running = 1 - side
            self._changed.notify_all()
        self._wait(side)
        waits = self.waited[side][doing == "validation"]
        waits.times += 1
        waits.seconds += time.perf_counter() - begins

    def _wait(self, side: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running == side or self._ended[1 - side])


@dataclass(frozen=True)
class Giving:
    """Progress of one side."""

    turns: Turns
    side: int

    def step(self, phase: str, _done: int, _total: int, /) -> None:
        """Give way after it."""
        self.turns.give(self.side, phase)
