"""How long the threads of this process waited for a core while something ran.

A thread that is ready to run and has no core makes a time longer than the work is. Linux counts
this wait for each thread (``/proc/self/task/*/schedstat``, second figure: the kernel's
Documentation/scheduler/sched-stats.rst). Elsewhere a forward during which a thread was switched off
against its will is taken to have waited for as long as no thread of the process ran.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

import numpy as np

from layerbench.environment.devices.clocks import Clock, ManualClock
from layerbench.records import samples

TASKS = Path("/proc/self/task")

# The kernel's own work takes a core for some microseconds now and then. Shorter waits than this
# share of the time that passed change no figure that is believed to a few per cent.
LEAST_SHARE = 0.05


class WaitMeter(Protocol):
    """Measures the wait for a core between `begin` and `end`."""

    def begin(self) -> None:
        """Begin; what ran before does not count."""

    def end(self) -> int | None:
        """Nanoseconds waited since `begin`; 0 for less than `LEAST_SHARE` of them.

        ``None`` where the system does not say.
        """


def wait_meter(clock: Clock) -> WaitMeter:
    """The meter of this system; one that knows nothing for a clock that stands still."""
    if isinstance(clock, ManualClock):
        return Unknown()
    if RunQueue.readable():
        return RunQueue()
    return Switches() if hasattr(os, "getloadavg") else Unknown()


class Unknown:
    """The source on systems that do not count waits."""

    def begin(self) -> None:
        """Nothing to begin."""

    def end(self) -> int | None:
        """``None``."""
        return None


class RunQueue:
    """By Linux's count, all threads of the process added up.

    Args:
        tasks: a folder for each thread.
    """

    def __init__(self, tasks: Path = TASKS) -> None:
        self._tasks = str(tasks)
        self._before: dict[str, int] = {}
        self._begun = 0

    @classmethod
    def readable(cls, tasks: Path = TASKS) -> bool:
        """Whether the kernel counts at all: a thread that has run has a first figure."""
        try:
            main = (tasks / str(os.getpid()) / "schedstat").read_text(encoding="ascii")
        except (OSError, ValueError):
            return False
        return main.split()[:1] not in ([], ["0"])

    def begin(self) -> None:
        """Begin; what ran before does not count."""
        self._before = self._read()
        self._begun = time.perf_counter_ns()

    def end(self) -> int | None:
        """Nanoseconds waited, at most those that passed; 0 for a negligible share of them."""
        passed = time.perf_counter_ns() - self._begun
        now = self._read()
        waited = sum(max(0, total - self._before.get(task, 0)) for task, total in now.items())
        return _counted(waited, passed)

    def _read(self) -> dict[str, int]:
        """What each thread has waited so far."""
        waits = {}
        for task in os.listdir(self._tasks):
            try:
                with open(f"{self._tasks}/{task}/schedstat", "rb", buffering=0) as file:
                    waits[task] = int(file.read(96).split()[1])
            except (OSError, IndexError, ValueError):
                continue  # the thread has ended meanwhile
        return waits


class Switches:
    """By involuntary switches and the processor's time, where Linux's count is not there."""

    def begin(self) -> None:
        """Begin; what ran before does not count."""
        self._switches = _involuntary_switches()
        self._used = time.process_time_ns()
        self._begun = time.perf_counter_ns()

    def end(self) -> int | None:
        """Nanoseconds in which nothing of the process ran; 0 if no thread was switched off."""
        passed = time.perf_counter_ns() - self._begun
        used = time.process_time_ns() - self._used
        if _involuntary_switches() == self._switches:
            return 0
        return _counted(passed - used, passed)


def _involuntary_switches() -> int:
    import resource  # not everywhere

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _counted(waited: int, passed: int) -> int:
    return min(waited, passed) if waited > LEAST_SHARE * passed else 0


def wait_arrays(kinds: dict[str, list[int | None]]) -> dict[str, samples.Samples]:
    """The waits of each kind of forward, under the names of `layerbench.records.samples`.

    Args:
        kinds: by kind, one for each forward; those that are not known make no array.
    """
    return {
        samples.WAITED + kind: np.array(waits, dtype=np.int64)
        for kind, waits in kinds.items()
        if waits and None not in waits
    }
