"""How an accelerator was while it was measured, and how long it was warmed up. No torch."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median, quantiles
from typing import NamedTuple

from pydantic import Field

from layerbench.records.bounds import Amount, Count, Figure, Name, Positive, Time, is_none
from layerbench.records.workload import Frozen
from layerbench.units import frequency, percent

LEAST_CLOCK = 0.95
"""Of the highest clock: below it times are not those that the accelerator can have."""


class WarmUp(Frozen):
    """What came before the measured rounds.

    Attributes:
        rounds: that were not kept.
        seconds: that they took.
        steady: whether times no longer changed at its end: the medians of two windows agreed. If
            not, it ended at its longest.
        warm_ups: how many there were: one for each process, or each part of a measurement. Of
            several, rounds and seconds are the longest one's, and steady means all of them.
        unsteady: how many of several ended while times still changed.
    """

    rounds: Count
    seconds: Time
    steady: bool
    # Left out of the JSON where there was one, as in records from before.
    warm_ups: Positive = Field(default=1, exclude_if=lambda count: count == 1)
    unsteady: Count = Field(default=0, exclude_if=operator.not_)

    @classmethod
    def together(cls, taken: Iterable[WarmUp | None]) -> WarmUp | None:
        """Several warm-ups as one; ``None`` where there was none."""
        every = [one for one in taken if one is not None]
        if len(every) < 2:
            return every[0] if every else None
        longest = max(every, key=lambda one: one.seconds)
        unsteady = sum(one.unsteady or int(not one.steady) for one in every)
        return cls(
            rounds=longest.rounds,
            seconds=longest.seconds,
            steady=not unsteady,
            warm_ups=sum(one.warm_ups for one in every),
            unsteady=unsteady,
        )


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


class DeviceConditions(Frozen):
    """An accelerator's clock, power and temperature, looked at between the measured rounds.

    ``None`` is what the device does not tell.

    Attributes:
        looks: how often it was looked at.
        clock_p5_hz, clock_median_hz: of its multiprocessors.
        highest_clock_hz: that they can have.
        slowed_by: reasons why the clock was lower than it could be, with the share of looks at
            which they held.
        power_w: the median.
        temperature_c: the highest, in degrees Celsius.
    """

    looks: Count
    clock_p5_hz: Amount | None = Field(default=None, exclude_if=is_none)
    clock_median_hz: Amount | None = Field(default=None, exclude_if=is_none)
    highest_clock_hz: Amount | None = Field(default=None, exclude_if=is_none)
    slowed_by: dict[Name, Amount] = Field(default_factory=dict)
    power_w: Amount | None = Field(default=None, exclude_if=is_none)
    temperature_c: Figure | None = Field(default=None, exclude_if=is_none)

    @classmethod
    def of(cls, looks: Sequence[DeviceLook]) -> DeviceConditions | None:
        """What was seen in all looks, in one process or in several; ``None`` without any."""
        if not looks:
            return None
        clocks = _told(look.clock_hz for look in looks)
        powers = _told(look.power_w for look in looks)
        reasons = Counter(reason for look in looks for reason in look.slowed_by)
        return cls(
            looks=len(looks),
            clock_p5_hz=_p5(clocks) if clocks else None,
            clock_median_hz=median(clocks) if clocks else None,
            highest_clock_hz=max(_told(look.highest_clock_hz for look in looks), default=None),
            slowed_by={reason: count / len(looks) for reason, count in reasons.most_common()},
            power_w=median(powers) if powers else None,
            temperature_c=max(_told(look.temperature_c for look in looks), default=None),
        )

    @property
    def warning(self) -> str:
        """A sentence where the clock was low; empty where it was not."""
        clock, highest = self.clock_median_hz, self.highest_clock_hz
        if not clock or not highest or clock >= LEAST_CLOCK * highest:
            return ""
        part = percent(clock / highest, beyond=LEAST_CLOCK)
        reasons = ", ".join(self.slowed_by)
        return (
            f"The accelerator's clock was {frequency(clock)}, {part} of its "
            f"highest{f' ({reasons})' if reasons else ''}: fix the clock "
            "(nvidia-smi --lock-gpu-clocks), cool the device, or raise its power limit."
        )


def _told(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _p5(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[0] if len(values) > 1 else values[0]
