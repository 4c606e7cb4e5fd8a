"""Work behind a blocked queue: the device is kept busy until all of it waits, and then never waits.

What it takes there is what the device needs; the same untouched, less that, is what launching
costs (docs/decisions/0034).
"""

from __future__ import annotations

from collections.abc import Callable

from layerbench.environment.devices import Device
from layerbench.environment.devices.blocking import HELD_AT_LEAST
from layerbench.units import NANOSECOND

# The queue is blocked in every so many rounds: that waits as long as the host launches.
BLOCKED_EVERY = 5
# So many times what the host takes to launch the work, the queue is held.
_MARGIN = 1.5
# After so many tries in which the host was slower than that, and none in which it was not, it is
# not tried again. Each time it is held twice as long.
_TRIES = 3
# Where a shorter time was refused, it is not for its length.
_LONG_S = 0.5

WAITS = (
    "the {what} waits for the device, or is more work than its queue holds, so it cannot be queued "
    "beforehand"
)
TOO_LONG = "launching a {what} takes longer than a queue is held"
HELD_TOO_SHORTLY = "whenever the queue was held, launching took longer than foreseen"
CANNOT_BLOCK = "nothing holds the queue of this kind of device"


class BlockedQueue:
    """Runs work of one kind behind a blocked queue, for as long as launching it took before.

    Args:
        device: whose queue is blocked.
        what: the work is, in one word.
    """

    def __init__(self, device: Device, what: str) -> None:
        self._device = device
        self._what = what
        self._too_slow = 0
        self._has_been_fast = False
        self._why_not = ""

    @property
    def is_given_up(self) -> bool:
        """Whether there is no point in another try."""
        return bool(self._why_not)

    def run(self, launching_s: float, work: Callable[[], tuple[int, int | None]]) -> int | None:
        """Run the work once behind a blocked queue.

        Args:
            launching_s: what the host takes to launch it.
            work: waits for the device at its end; gives what device and host took, nanoseconds.

        Returns:
            what the device took, nanoseconds; ``None`` where the queue was not held until the work
            had been launched.
        """
        held_s = _MARGIN * launching_s * 2 ** min(self._too_slow, _TRIES)
        if not self._device.block_queue(held_s):
            self._why_not = TOO_LONG if held_s > _LONG_S else CANNOT_BLOCK
            return None
        device, host = work()
        if host is not None and host * NANOSECOND <= HELD_AT_LEAST * held_s:
            self._has_been_fast = True
            return device
        self._too_slow += 1
        # A host that was fast enough once is disturbed now and then, and does not wait.
        if self._too_slow >= _TRIES and not self._has_been_fast:
            self._why_not = WAITS
        return None

    def why_not(self, came_out: bool) -> str:
        """Why there is no time behind a blocked queue; empty where there is one.

        Args:
            came_out: whether any of the runs gave a time that is kept.
        """
        why = self._why_not or ("" if came_out else HELD_TOO_SHORTLY)
        return why.format(what=self._what)
