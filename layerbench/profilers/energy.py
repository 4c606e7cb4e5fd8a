"""The energy of a forward: repeated for as long as a counter's steps ask for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum

from layerbench.analysis.student_t import quantile
from layerbench.environment.devices import Device
from layerbench.environment.devices.energy import Counter, NoCounterError, counters, described
from layerbench.profilers.progress import Progress
from layerbench.profilers.rounds import Rounds
from layerbench.records.energy import Energy

ENERGY = "energy"
"""In `RunFacts.absent`: why no energy was measured."""
WINDOWS = 5
# A window is so many steps of the counters long: where in a step it begins and ends is then 2 %.
STEPS = 50
LEAST_WINDOW_S = 0.2
# Steps that are looked at beforehand, and for how long at most.
_SEEN = 5
_LOOK_S = 1.0


@dataclass(frozen=True)
class Window:
    """One window: joules by counter, seconds, and how many forwards ran in it."""

    joules: tuple[float, ...]
    seconds: float
    forwards: int


def measure_energy(device: Device, rounds: Rounds, progress: Progress) -> tuple[Energy | None, str]:
    """The energy of a forward on a device, or why it is not known.

    Args:
        device: whose counters are read.
        rounds: of the model; they have its call.
        progress: hears of each window.
    """

    def forward() -> None:
        rounds.renew_inputs()
        rounds.call()

    try:
        found = counters(device)
        return energy_of(found, forward, device.clock().synchronize, progress), ""
    except NoCounterError as error:
        return None, str(error)


def energy_of(
    found: Sequence[Counter],
    forward: Callable[[], object],
    wait: Callable[[], object],
    progress: Progress,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Energy:
    """The energy of a forward by these counters.

    Args:
        found: the counters.
        forward: runs the model once.
        wait: until the device has done it.
        progress: hears of each window.
        now: the time, seconds.
        sleep: lets so many seconds pass without work.

    Raises:
        NoCounterError: a counter does not move.
    """
    meter = _Meter(found, now)
    step_s = meter.longest_step_s()
    window_s = max(LEAST_WINDOW_S, STEPS * step_s)
    progress.step(ENERGY, 0, WINDOWS + 1)
    idle = meter.window(lambda: sleep(window_s), window_s)

    def work() -> None:
        forward()
        wait()

    work()
    windows = []
    for done in range(WINDOWS):
        progress.step(ENERGY, done + 1, WINDOWS + 1)
        windows.append(meter.window(work, window_s))
    each = [fsum(window.joules) / window.forwards for window in windows]
    mean = fsum(each) / len(each)
    variance = fsum((joules - mean) ** 2 for joules in each) / (len(each) - 1)
    shortest = min(window.seconds for window in windows)
    error = math.sqrt(variance / len(each))
    half = quantile(0.95, len(each) - 1) * error + mean * step_s / shortest
    parts = [
        fsum(window.joules[index] / window.forwards for window in windows) / len(windows)
        for index in range(len(found))
    ]
    seconds = fsum(window.seconds for window in windows)
    forwards = sum(window.forwards for window in windows)
    limits = [counter.limit_w for counter in found]
    return Energy(
        forward_j=mean,
        low_j=max(0.0, mean - half),
        high_j=mean + half,
        parts_j={counter.name: part for counter, part in zip(found, parts, strict=True)},
        power_w=fsum(fsum(window.joules) for window in windows) / seconds,
        forward_s=seconds / forwards,
        idle_w=fsum(idle.joules) / idle.seconds,
        limit_w=None if None in limits else fsum(limit for limit in limits if limit is not None),
        windows=len(windows),
        forwards=forwards,
        window_s=shortest,
        step_s=step_s,
        counters=f"{', '.join(counter.name for counter in found)}, found by {described()}",
    )


class _Meter:
    """Reads counters around work.

    Args:
        found: the counters.
        now: the time, seconds.
    """

    def __init__(self, found: Sequence[Counter], now: Callable[[], float]) -> None:
        self._found = found
        self._now = now

    def longest_step_s(self) -> float:
        """The longest time between two steps of a counter.

        Raises:
            NoCounterError: one does not move within a second.
        """
        return max(self._step_s(counter) for counter in self._found)

    def _step_s(self, counter: Counter) -> float:
        moments: list[float] = []
        begin, value = self._now(), counter.read()
        while len(moments) <= _SEEN:
            read, moment = counter.read(), self._now()
            if read != value:
                value = read
                moments.append(moment)
            elif moment - begin > _LOOK_S:
                break
        if len(moments) < 2:
            raise NoCounterError(f"the counter of {counter.name} does not move within a second")
        return max(after - before for before, after in pairwise(moments))

    def window(self, work: Callable[[], object], least_s: float) -> Window:
        """Work until the time is over; it begins with a step of the first counter."""
        first = self._found[0]
        value, begin = first.read(), self._now()
        while first.read() == value and self._now() - begin < _LOOK_S:
            pass
        start, before = self._now(), [counter.read() for counter in self._found]
        done = 0
        while True:
            work()
            done += 1
            if (end := self._now()) - start >= least_s:
                break
        after = [counter.read() for counter in self._found]
        joules = (
            counter.between(*ends)
            for counter, *ends in zip(self._found, before, after, strict=True)
        )
        return Window(tuple(joules), end - start, done)
