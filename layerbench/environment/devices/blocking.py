"""Work of a wanted length at the end of a device's queue: what follows waits there until it ends.

NVBench holds a stream for the same purpose (``blocking_kernel.cuh``): behind work that takes
longer than launching a forward, all kernels of the forward wait in the queue, and follow each
other without the gaps in which the device waits for the host. The work is bounded, so that a
forward that itself waits for the device only takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from layerbench.environment.devices.clocks import DeviceEvents
from layerbench.units import NANOSECOND

LONGEST_S = 1.0
"""A queue is held for no longer. Some systems end what keeps a GPU for two seconds."""
HELD_AT_LEAST = 0.9
"""A queue is held for about so long as asked for, and for no less than this part of it."""

# The unit's length is taken from work that lasts at least so long.
_CALIBRATED_S = 1e-3
_GROWTH = 4
_MOST_STEPS = 30
# Work whose launching takes more than this share of its time holds nothing. Whatever else runs on
# the host may make a launch look long, so it has some tries.
_LAUNCH_SHARE = 0.5
_LONGEST_LAUNCH_S = 0.05
_TRIES = 3


class _Put(NamedTuple):
    """Work on the queue: so many units, between two marks."""

    units: int
    start: int
    end: int


class QueueBlocker:
    """Holds the queue of one device.

    How long a unit of the work takes is measured at first use, and again whenever the queue was
    held: the clock of a device rises when it begins to work.

    Args:
        clock: of its own, on the device.
        spin: puts so many units of work on the device's present queue, and does not wait.
    """

    def __init__(self, clock: DeviceEvents, spin: Callable[[int], object]) -> None:
        self._clock = clock
        self._spin = spin
        self._unit_s: float | None = None  # 0 where it cannot be held
        self._last: _Put | None = None

    def block(self, seconds: float) -> bool:
        """Hold the queue for about so long.

        Returns:
            whether it is held: False where launching takes too long, or it would be for more than
            `LONGEST_S`.
        """
        if seconds > LONGEST_S:
            return False
        if self._unit_s is None:
            self._unit_s = self._calibrated()
        if not self._unit_s:
            return False
        self._learn()
        self._last = self._put(max(1, math.ceil(seconds / self._unit_s)))
        return True

    def _put(self, units: int) -> _Put:
        self._clock.release()
        self._clock.reserve(2)
        start = self._clock.mark()
        self._spin(units)
        return _Put(units, start, self._clock.mark())

    def _calibrated(self) -> float:
        """Seconds of a unit; 0 where launching takes too long."""
        self._finished(1)  # the first kernel of its kind is loaded
        units = 1
        for _ in range(_MOST_STEPS):
            put = self._finished(units)
            if self._launched_s(put) > _LONGEST_LAUNCH_S:
                return 0.0
            if self._taken_s(put) >= _CALIBRATED_S:
                break
            units *= _GROWTH
        for _ in range(_TRIES):
            unit_s = self._unit_of(self._finished(units))
            if unit_s:
                return unit_s
        return 0.0

    def _finished(self, units: int) -> _Put:
        put = self._put(units)
        self._clock.synchronize()
        return put

    def _learn(self) -> None:
        """Take the unit's length from the last time, where that is over."""
        if self._last is None or not self._clock.has_passed(self._last.end):
            return
        if self._taken_s(self._last) >= _CALIBRATED_S:
            self._unit_s = self._unit_of(self._last) or self._unit_s

    def _unit_of(self, put: _Put) -> float:
        """Seconds of a unit, at least; 0 where launching took too much of them to tell.

        The host may have been disturbed before it launched the work, and the device have waited
        meanwhile. With that time in the unit, the queue would be held too shortly ever after.
        """
        taken_s, launched_s = self._taken_s(put), self._launched_s(put)
        if launched_s > _LAUNCH_SHARE * taken_s:
            return 0.0
        return (taken_s - launched_s) / put.units

    def _taken_s(self, put: _Put) -> float:
        start, end = self._clock.resolve([put.start, put.end])
        return (end - start) * NANOSECOND

    def _launched_s(self, put: _Put) -> float:
        start, end = self._clock.resolve_host([put.start, put.end])
        return (end - start) * NANOSECOND


_SIDE = 1024


def products(device: torch.device) -> Callable[[int], None]:
    """Puts so many products of two matrices on a device's queue: work that any device has.

    No mode of a user's own sees them, such as one that counts operators.
    """

    def spin(units: int) -> None:
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            matrix = torch.zeros(_SIDE, _SIDE, device=device)
            product = torch.empty_like(matrix)
            for _ in range(units):
                torch.mm(matrix, matrix, out=product)

    return spin
