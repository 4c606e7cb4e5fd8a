"""Clocks: an instrument only marks; the marks are resolved after the forward.

Positions are integer nanoseconds, so that self times add up to the whole exactly:
floating-point seconds would lose the last digit in every subtraction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol


class Clock(Protocol):
    """Marks moments cheaply and turns marks into positions afterwards."""

    @property
    def mark(self) -> Callable[[], int]:
        """A function that marks the present moment and returns a handle for it."""

    def reserve(self, marks: int) -> None:
        """Make room for this many marks before the forward, so that none is made during it."""

    def synchronize(self) -> None:
        """Wait until every mark has happened."""

    def resolve(self, marks: Sequence[int]) -> list[int]:
        """The marks' positions on one axis, integer nanoseconds; valid after `synchronize`."""

    def resolve_host(self, marks: Sequence[int]) -> list[int] | None:
        """The marks' positions on the host's clock, or ``None`` if this *is* the host's clock."""

    def release(self) -> None:
        """Forget all marks; their handles may be used again."""


class PerfCounter:
    """The host's monotonic clock: a mark is its own position."""

    mark = staticmethod(time.perf_counter_ns)

    def reserve(self, marks: int) -> None:
        """Nothing to reserve."""

    def synchronize(self) -> None:
        """The CPU has done its work when the call returns."""

    def resolve(self, marks: Sequence[int]) -> list[int]:
        """The marks themselves."""
        return list(marks)

    def resolve_host(self, marks: Sequence[int]) -> list[int] | None:  # noqa: ARG002
        """``None``: the host's clock is the one in use."""
        return None

    def release(self) -> None:
        """Nothing to release."""


class Event(Protocol):
    """A device event, as `torch.cuda.Event` and `torch.Event` have it."""

    def record(self) -> object:
        """Mark the present end of the device's queue."""

    def elapsed_time(self, end_event: Event, /) -> float:
        """Milliseconds from this event to ``end_event``."""


class DeviceEvents:
    """An accelerator's clock: events from a pool made beforehand, and the host's time beside each.

    Args:
        make_event: makes one timing event.
        synchronize: waits for the device.
    """

    def __init__(self, make_event: Callable[[], Event], synchronize: Callable[[], object]) -> None:
        self._make_event = make_event
        self._wait = synchronize
        self._pool: list[Event] = []
        self._host: list[int] = []
        self._next = 0

    def mark(self) -> int:
        """Record the next event of the pool; the handle is its index."""
        index = self._next
        if index == len(self._pool):
            self._grow(1)
        self._next = index + 1
        self._host[index] = time.perf_counter_ns()
        self._pool[index].record()
        return index

    def reserve(self, marks: int) -> None:
        """Make events until ``marks`` of them are free."""
        self._grow(self._next + marks - len(self._pool))

    def _grow(self, count: int) -> None:
        for _ in range(count):
            self._pool.append(self._make_event())
            self._host.append(0)

    def synchronize(self) -> None:
        """Wait until the device has passed every event."""
        self._wait()

    def resolve(self, marks: Sequence[int]) -> list[int]:
        """Positions after the first mark of the pool, on the device's clock."""
        if not marks:
            return []
        first = self._pool[0]
        return [
            0 if mark == 0 else round(first.elapsed_time(self._pool[mark]) * 1e6) for mark in marks
        ]

    def resolve_host(self, marks: Sequence[int]) -> list[int] | None:
        """When the host recorded each event."""
        return [self._host[mark] for mark in marks]

    def release(self) -> None:
        """Give all events back to the pool."""
        self._next = 0


class ManualClock(PerfCounter):
    """A clock that advances only when asked to: exact tables in tests.

    Example:
        >>> clock = ManualClock()
        >>> start = clock.mark(); clock.advance(5); clock.resolve([start, clock.mark()])
        [0, 5]
    """

    def __init__(self) -> None:
        self.now_ns = 0

    def advance(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.now_ns += nanoseconds

    def mark(self) -> int:
        """The present position."""
        return self.now_ns
