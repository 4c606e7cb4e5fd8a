"""What measuring itself costs: one reading of the clock, one event, one wrapped call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import attributes_replaced
from layerbench.instruments.layer_timer import Recording, place_to_time, replacement
from layerbench.units import NANOSECOND

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


class EventCost(NamedTuple):
    """What an event costs where it stands, seconds.

    Attributes:
        queue_s: of the device's queue, for one more event in it.
        least_s: between two events with nothing between them: the shortest time that two can tell.
    """

    queue_s: float
    least_s: float


EVENTS = 200
# Longer than the host takes to record them all.
_HELD_S = 5e-3


def event_cost(device: Device) -> EventCost | None:
    """What an event costs on a device's queue, from many of them behind a blocked queue.

    ``None`` where the device has no events, or its queue cannot be held: then they stand as far
    apart as the host records them.
    """
    clock = device.clock()
    if clock.resolve_host([]) is None:
        return None
    clock.reserve(EVENTS)
    spans = []
    for _ in range(REPEATS):
        if not device.block_queue(_HELD_S):
            return None
        marks = [clock.mark() for _ in range(EVENTS)]
        clock.synchronize()
        spans.append(np.diff(clock.resolve(marks)))
        clock.release()
    return EventCost(
        queue_s=float(np.median([span.mean() for span in spans])) * NANOSECOND,
        least_s=float(np.median(np.concatenate(spans))) * NANOSECOND,
    )
