"""What measuring itself costs: one reading of the clock, one wrapped call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from torch import nn

from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import attributes_replaced
from layerbench.instruments.layer_timer import Recording, place_to_time, replacement

CALLS = 500
REPEATS = 9


class _Nothing(nn.Module):
    def forward(self) -> None:
        return None


def mark_cost_s(clock: Clock) -> float:
    """Seconds of host time for one mark: the median over repeats of a loop of marks."""
    mark = clock.mark

    def loop() -> None:
        for _ in range(CALLS):
            mark()

    def empty() -> None:
        for _ in range(CALLS):
            pass

    try:
        clock.reserve(CALLS * (REPEATS + 1))
        return max(0.0, _median_s(loop) - _median_s(empty)) / CALLS
    finally:
        clock.synchronize()
        clock.release()


def wrapper_cost_s(clock: Clock) -> float:
    """Seconds of host time that timing adds to one call of a module that does nothing.

    Taken in a tight loop; among real layers, with cold caches, a call costs more. May be negative:
    what takes the place of PyTorch's own call saves a frame.
    """
    module = _Nothing()
    recording = Recording()

    def loop() -> None:
        for _ in range(CALLS):
            module()

    try:
        clock.reserve(2 * CALLS * (REPEATS + 1))
        bare = _median_s(loop)
        timing = replacement(module, place_to_time(module), 0, clock.mark, recording)
        with attributes_replaced([timing]), recording.on():
            wrapped = _median_s(loop)
        return (wrapped - bare) / CALLS
    finally:
        clock.synchronize()
        clock.release()


def _median_s(loop: Callable[[], None]) -> float:
    loop()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        loop()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
