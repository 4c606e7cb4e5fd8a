"""Looks at an accelerator between the rounds of a measurement, where nothing is timed.

Whatever times a device has the `ConditionsWatch` of its `layerbench.environment.watch`, and calls
`ConditionsWatch.take` between two measured rounds, steps or forwards: the environment of the record
then says how the device was, and warns of a low clock. Loads no torch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import NamedTuple

from layerbench.records.conditions import DeviceConditions, WarmUp

# A look takes some tens of microseconds, and with some drivers a millisecond.
INTERVAL_S = 0.1
# So many are kept; of a longer measurement, such as a training, ever fewer for each second.
MOST_LOOKS = 4096


class DeviceLook(NamedTuple):
    """A device at one moment; ``None`` is what it does not tell.

    Attributes:
        clock_hz, highest_clock_hz: of its multiprocessors, and the highest that they can have.
        power_w: that it draws.
        temperature_c: degrees Celsius.
        slowed_by: why the clock is lower than it could be.
    """

    clock_hz: float | None = None
    highest_clock_hz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    slowed_by: tuple[str, ...] = ()


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

    def conditions(self) -> DeviceConditions | None:
        """What was seen; ``None`` where nothing was."""
        looks = self._looks
        if not looks:
            return None
        clocks = _told([look.clock_hz for look in looks])
        powers = _told([look.power_w for look in looks])
        reasons = Counter(reason for look in looks for reason in look.slowed_by)
        return DeviceConditions(
            looks=len(looks),
            clock_p5_hz=_p5(clocks) if clocks else None,
            clock_median_hz=median(clocks) if clocks else None,
            highest_clock_hz=max(_told([look.highest_clock_hz for look in looks]), default=None),
            slowed_by={reason: count / len(looks) for reason, count in reasons.most_common()},
            power_w=median(powers) if powers else None,
            temperature_c=max(_told([look.temperature_c for look in looks]), default=None),
        )


def _told(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _p5(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[0] if len(values) > 1 else values[0]
