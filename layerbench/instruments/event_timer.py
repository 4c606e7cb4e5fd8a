"""Device rounds by events: the times of a model's modules where the profiler sees no kernels.

Two events around every module would stand between all kernels. Here one forward is observed
beforehand; from then on an event stands only where a piece of work ends and the next begins. The
queue is blocked until the host has issued the whole forward, so that the device does not wait for
the host, and what an event itself takes on the queue is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import nn

from layerbench.environment.devices import Device
from layerbench.instruments.calibration import event_cost
from layerbench.instruments.forward_marks import ForwardMarks
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.modules import Call
from layerbench.instruments.queue_block import QueueBlock
from layerbench.units import NANOSECOND

# What is shorter than so many events is not told from the events' own irregularity.
LEAST_IN_EVENTS = 5


class EventTimer:
    """Times a model's modules on the device, by an event at each end of a piece of work.

    The first `run` is the one that is observed: with two events for each module, and not behind a
    blocked queue, as nobody knows yet how long the host takes. It belongs into the warm-up.
    Known limitations: as of `ForwardMarks`.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those whose borders count; a call of any other is part of its caller.
        device: where the model runs.
        observes: whether a mode may see the operators of a forward; else two events stand around
            each module in all of them.

    Attributes:
        has_run: whether a forward has run to its end; the first is no sample.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        timed_paths: frozenset[str],
        device: Device,
        *,
        observes: bool = True,
    ) -> None:
        self.has_run = False
        self._device = device
        self._clock = device.clock()
        kind = device.torch_device.type
        self._marks = ForwardMarks(
            model, paths, timed_paths, kind, self._clock.mark, observes=observes
        )
        self._block = QueueBlock(device)

    def look_anew(self, model: nn.Module, timed_paths: frozenset[str]) -> None:
        """Take what lies on the modules now, as of `ForwardMarks`."""
        self._marks.look_anew(model, timed_paths)

    @cached_property
    def _event_times(self) -> EventTimes:
        return event_times(self._device)

    @property
    def event_cost_ns(self) -> int:
        """Nanoseconds that an event takes on the queue; 0 where that cannot be told."""
        return self._event_times.cost_ns

    @property
    def resolution_ns(self) -> int:
        """Nanoseconds of the shortest piece of work that two events tell from nothing."""
        return self._event_times.resolution_ns

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:  # noqa: ARG002
        """Run one forward, wait for the device, and add the pieces up; functions have no rows.

        Whatever the model raises passes through; the model is left as it was.
        """
        cost, clock = self.event_cost_ns, self._clock
        clock.reserve(self._marks.marks)
        try:
            with self._block.on():
                self._marks.run(call)
            self.has_run = True
            clock.synchronize()
            return self._marks.added_up(clock.resolve(self._marks.borders.marks), cost)
        finally:
            clock.release()

    def below_resolution(self, forwards: Sequence[KernelForward]) -> tuple[int, ...]:
        """Indices of the modules whose pieces of work are too short for the clock.

        Each piece may be wrong by an event or so: a module's time is set against as many
        resolutions as it has pieces of work.
        """
        if not forwards:
            return ()
        pieces = self._marks.pieces(forwards[-1].calls)
        times = np.median(np.stack([forward.inclusive_ns for forward in forwards]), axis=0)
        below = (times < pieces * self.resolution_ns) & (pieces > 0)
        return tuple(int(index) for index in np.flatnonzero(below))

    def forget(self) -> None:
        """Let `notes` speak only of forwards from here on: those before were the warm-up's."""
        self._marks.forget()
        self._block.forget()

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the forwards so far."""
        return (*self._marks.notes(), *self._block.notes(self._marks.forwards))


class EventTimes(NamedTuple):
    """What two events tell.

    Attributes:
        cost_ns: nanoseconds that one takes on the queue.
        resolution_ns: of the shortest piece of work that two tell from nothing: `LEAST_IN_EVENTS`
            of these, or of what lies between two with nothing between them, if that is longer.
    """

    cost_ns: int
    resolution_ns: int


def event_times(device: Device) -> EventTimes:
    """What a device's events tell; 0 where what they cost cannot be told."""
    cost = event_cost(device)
    if cost is None:
        return EventTimes(0, 0)
    queue_ns, least_ns = (round(seconds / NANOSECOND) for seconds in cost)
    return EventTimes(queue_ns, LEAST_IN_EVENTS * max(queue_ns, least_ns))
