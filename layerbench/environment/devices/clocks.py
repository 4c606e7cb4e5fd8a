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
        """Make ready for a forward of so many marks, so that nothing is made during it.

        Its marks go to the queue that is the device's current one now.
        """

    def synchronize(self) -> None:
        """Wait until every mark has happened."""

    def wait(self, mark: int) -> None:
        """Wait until this mark has happened, and all before it."""

    def resolve(self, marks: Sequence[int], origin: int | None = None) -> list[int]:
        """The marks' positions on one axis, integer nanoseconds; they must have happened.

        A device tells the time between two marks in single precision: the nearer the origin, the
        more digits. So marks of several forwards are resolved a forward at a time.

        Args:
            marks: in any order.
            origin: the mark at 0, or before all of them; ``None`` for the first of these marks.
        """

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

    def wait(self, mark: int) -> None:
        """It has happened."""

    def resolve(self, marks: Sequence[int], origin: int | None = None) -> list[int]:  # noqa: ARG002
        """The marks themselves."""
        return list(marks)

    def resolve_host(self, marks: Sequence[int]) -> list[int] | None:  # noqa: ARG002
        """``None``: the host's clock is the one in use."""
        return None

    def release(self) -> None:
        """Nothing to release."""


class Event(Protocol):
    """A timing event of a device, as `torch.Event` has it."""

    def record(self, stream: object, /) -> object:
        """Mark the present end of a queue."""

    def query(self) -> bool:
        """Whether the device has passed it."""

    def synchronize(self) -> object:
        """Wait until the device has passed it."""

    def elapsed_time(self, end_event: Event, /) -> float:
        """Milliseconds from this event to ``end_event``."""


class DeviceEvents:
    """An accelerator's clock: events from a pool made beforehand, and the host's time beside each.

    Args:
        make_event: makes one timing event.
        synchronize: waits for the device.
        queue: gives the device's current queue, to record events on.
    """

    def __init__(
        self,
        make_event: Callable[[], Event],
        synchronize: Callable[[], object],
        queue: Callable[[], object],
    ) -> None:
        self._make_event = make_event
        self._wait = synchronize
        self._find_queue = queue
        self._queue: object = None
        self._pool: list[Event] = []
        # In a list of their own: looking a method up is part of what a mark costs.
        self._record: list[Callable[[object], object]] = []
        self._host: list[int] = []
        self._next = 0

    def mark(self) -> int:
        """Record the next event of the pool; the handle is its index."""
        index = self._next
        if index == len(self._pool):
            self.reserve(1)
        self._next = index + 1
        self._host[index] = time.perf_counter_ns()
        self._record[index](self._queue)
        return index

    def reserve(self, marks: int) -> None:
        """Take the device's current queue, and make events until ``marks`` of them are free."""
        self._queue = self._find_queue()
        for _ in range(self._next + marks - len(self._pool)):
            event = self._make_event()
            event.record(self._queue)  # only then a device makes it
            self._pool.append(event)
            self._record.append(event.record)
            self._host.append(0)

    def synchronize(self) -> None:
        """Wait until the device has passed every event."""
        self._wait()

    def wait(self, mark: int) -> None:
        """Wait until the device has passed this event."""
        self._pool[mark].synchronize()

    def has_passed(self, mark: int) -> bool:
        """Whether the device has passed this event."""
        return self._pool[mark].query()

    def resolve(self, marks: Sequence[int], origin: int | None = None) -> list[int]:
        """Positions after the origin, on the device's clock."""
        if not marks:
            return []
        first = min(marks) if origin is None else origin
        elapsed = self._pool[first].elapsed_time
        return [0 if mark == first else round(elapsed(self._pool[mark]) * 1e6) for mark in marks]

    def resolve_host(self, marks: Sequence[int]) -> list[int]:
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
