"""Blocks a device's queue while the host issues work: then the device does not wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from layerbench.environment.devices import Device
from layerbench.environment.devices.blocking import HELD_AT_LEAST
from layerbench.units import NANOSECOND

LAUNCHING_WITHIN = (
    "the queue cannot be blocked here: launching by the host, and the events themselves, are "
    "within device times"
)


class QueueBlock:
    """Blocks a device's queue for as long as the host took to issue the same work before.

    Bounded: a forward in which the host waits for the device would wait for the block, too.

    Args:
        device: whose present queue is blocked.
        work: what is issued meanwhile, in notes.
        times: which times are taken from it, in notes.

    Attributes:
        cannot: whether the device said that its queue cannot be blocked.
    """

    # Twice the host's time and half a millisecond: the host's time varies. One that was long is
    # forgotten little by little.
    FACTOR, MARGIN_S, KEPT = 2.0, 0.0005, 0.8
    MOST_S = 1.0
    # After so many times in a row that outlasted the block, it is not tried again.
    ATTEMPTS = 3

    def __init__(self, device: Device, work: str = "forward", times: str = "device times") -> None:
        self._device = device
        self._work = work
        self._times = times
        self._issue_s: float | None = None
        self._outlasted = 0
        self._in_a_row = 0
        self.cannot = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Block the queue while the ``with`` block issues its work."""
        begun = perf_counter_ns()
        blocked_s = self._begin()
        yield
        took_s = (perf_counter_ns() - begun) * NANOSECOND
        if blocked_s is not None:
            # One that waits for the device ends with the block, or after it.
            outlasted = took_s > HELD_AT_LEAST * blocked_s
            self._outlasted += outlasted
            self._in_a_row = self._in_a_row + 1 if outlasted else 0
        self._issue_s = max(took_s, self.KEPT * (self._issue_s or 0.0))

    def _begin(self) -> float | None:
        """The seconds for which the queue is blocked; ``None`` where it is not."""
        if self._issue_s is None or not self.is_blocking:
            return None
        wanted = min(self.FACTOR * self._issue_s + self.MARGIN_S, self.MOST_S)
        try:
            blocked = self._device.block_queue(wanted)
        except RuntimeError:  # a full device may have no memory for the work
            blocked = False
        self.cannot = not blocked
        return wanted if blocked else None

    @property
    def is_blocking(self) -> bool:
        """Whether the queue is blocked from the second time on; it may be given up later."""
        return not self.cannot and self._in_a_row < self.ATTEMPTS

    def forget(self) -> None:
        """Count anew what outlasted the block."""
        self._outlasted = 0

    def notes(self, times: int) -> tuple[str, ...]:
        """What a reader should know of what was issued, so many times."""
        if self.cannot:
            return (LAUNCHING_WITHIN,)
        if not self.is_blocking:
            return (
                f"the host waits for the device in the {self._work}, or takes too long to launch "
                f"it: launching is within {self._times}",
            )
        if self._outlasted:
            return (
                f"{self._outlasted} of {times} {self._work}s for {self._times} took the host "
                "longer than the queue was blocked: some launching may be within them",
            )
        return ()
