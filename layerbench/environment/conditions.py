"""Looks at an accelerator between the rounds of a measurement, where nothing is timed.

Whatever times a device has the `ConditionsWatch` of its `layerbench.environment.watch`, and calls
`ConditionsWatch.take` between two measured rounds, steps or forwards: the environment of the record
then says how the device was, and warns of a low clock. Loads no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from layerbench.records.conditions import DeviceConditions, DeviceLook, WarmUp

# A look takes some tens of microseconds, and with some drivers a millisecond.
INTERVAL_S = 0.1
# So many are kept; of a longer measurement, such as a training, ever fewer for each second.
MOST_LOOKS = 4096


class ConditionsWatch:
    """Keeps how a device was during a measurement.

    Args:
        look: at the device, now; ``None`` where it tells nothing.
        now: seconds, for tests.
    """

    def __init__(
        self,
        look: Callable[[], DeviceLook | None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._look = look
        self._now = now
        self._interval_s = INTERVAL_S
        self._next_s = 0.0
        self._looks: list[DeviceLook] = []
        self._warm_ups: list[WarmUp | None] = []

    def take(self) -> None:
        """Look, unless it was only just done. To be called between two rounds."""
        began = self._now()
        if began < self._next_s:
            return
        seen = self._look()
        self._next_s = began + self._interval_s
        if seen is None:
            return
        self._looks.append(seen)
        if len(self._looks) > MOST_LOOKS:
            # Every second one, so that all of the measurement weighs alike.
            self._looks = self._looks[::2]
            self._interval_s *= 2

    def add_warm_up(self, taken: WarmUp | None) -> None:
        """Keep what came before rounds; ``None`` for nothing, as on a CPU."""
        self._warm_ups.append(taken)

    @property
    def warm_up(self) -> WarmUp | None:
        """All warm-ups so far as one."""
        return WarmUp.together(self._warm_ups)

    @property
    def looks(self) -> tuple[DeviceLook, ...]:
        """What was seen, look by look."""
        return tuple(self._looks)

    def conditions(self) -> DeviceConditions | None:
        """What was seen; ``None`` where nothing was."""
        return DeviceConditions.of(self._looks)
