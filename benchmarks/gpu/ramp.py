"""How long forwards take from an idle device on, while its clock goes up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.device_queue import host_s, waiter
from benchmarks.gpu.step import Figures, Settings, forward_of
from layerbench import units
from layerbench.environment.devices import Device

SECONDS = 3.0
EVERY_S = 0.005
# The device is idle once its clock is below this share of the highest, or after so many seconds.
IDLE_SHARE = 0.5
IDLE_AT_MOST_S = 6.0
WINDOW_S = 0.1
CLOSE = 0.01


@dataclass
class Sample:
    """One forward.

    Attributes:
        at_s: since the first.
        forward_s: on the device's clock.
        sm_mhz: clock of the multiprocessors, right after it; ``None`` where it is not told.
        power_w: drawn then.
    """

    at_s: float
    forward_s: float
    sm_mhz: float | None = None
    power_w: float | None = None


@dataclass
class Ramp(Figures):
    """Forwards one after the other, of which one in 5 ms is kept.

    Attributes:
        idle_s: rest before the first.
        highest_mhz: the device's highest clock.
        look_s: what a look at the device takes.
        settled_s: from here on the median of every tenth of a second lies within 1 % of that of
            the last third.
    """

    model: str = ""
    idle_s: float = 0.0
    highest_mhz: float | None = None
    look_s: float | None = None
    settled_s: float | None = None
    samples: list[Sample] = field(default_factory=list)

    def headline(self) -> str:
        """From where to where, and when it was there."""
        if not self.samples:
            return ""
        first = statistics.median(s.forward_s for s in self.samples[:5])
        last = statistics.median(s.forward_s for s in self._last_third())
        text = f"{units.seconds(first)} at first, {units.seconds(last)} at last"
        if self.settled_s is not None:
            text += f", settled after {self.settled_s:.2f} s"
        clocks = [s.sm_mhz for s in self.samples if s.sm_mhz is not None]
        return f"{text}; SM clock {clocks[0]:.0f} to {clocks[-1]:.0f} MHz" if clocks else text

    def table(self) -> list[list[str]]:
        """A row a tenth of a second, and each forward of the first 50 ms."""
        rows = [[f"{s.at_s:.3f}", units.seconds(s.forward_s), _clock(s.sm_mhz)]
                for s in self.samples if s.at_s < 0.05]  # fmt: skip
        for begin, together in self._windows():
            clocks = [s.sm_mhz for s in together if s.sm_mhz is not None]
            rows.append(
                [
                    f"{begin:.1f} to {begin + WINDOW_S:.1f}",
                    units.seconds(statistics.median(s.forward_s for s in together)),
                    _clock(statistics.median(clocks) if clocks else None),
                ]
            )
        return [["after, s", "forward", "SM clock, MHz"], *rows]

    def settle(self) -> None:
        """Work out when the forwards had their final length."""
        if not self.samples:
            return
        last = statistics.median(s.forward_s for s in self._last_third())
        self.settled_s = 0.0
        for begin, together in self._windows():
            median = statistics.median(s.forward_s for s in together)
            if abs(median / last - 1) > CLOSE:
                self.settled_s = begin + WINDOW_S

    def _last_third(self) -> list[Sample]:
        return self.samples[-(-2 * len(self.samples) // 3) :] or self.samples

    def _windows(self) -> Iterator[tuple[float, list[Sample]]]:
        numbers = sorted({int(s.at_s / WINDOW_S) for s in self.samples})
        for number in numbers:
            yield (
                number * WINDOW_S,
                [s for s in self.samples if int(s.at_s / WINDOW_S) == number],
            )


def run(settings: Settings) -> Iterator[Ramp]:
    """Prepare, rest, run."""
    device = settings.opened()
    figures = Ramp(model=settings.models[0])
    forward = forward_of(settings.built(figures.model, 1))
    for _ in range(settings.either(10, 1)):
        forward()  # libraries are loaded, kernels chosen
    figures.look_s = statistics.median(host_s(device.look) for _ in range(9))
    seen = device.look()
    if seen is None or seen.clock_hz is None:
        figures.absent["the device's clock"] = f"it is not told on {device.kind}"
    elif seen.highest_clock_hz is not None:
        figures.highest_mhz = seen.highest_clock_hz * 1e-6
    waiter(device)()
    figures.idle_s = _rest(device, figures.highest_mhz, settings.either(IDLE_AT_MOST_S, 0.0))
    _sample(figures, forward, device, settings.either(SECONDS, 0.02))
    figures.settle()
    yield figures


def _clock(mhz: float | None) -> str:
    return "-" if mhz is None else f"{mhz:.0f}"


def _mhz(device: Device) -> tuple[float | None, float | None]:
    """The clock now in MHz, and the power in W."""
    seen = device.look()
    if seen is None:
        return None, None
    return seen.clock_hz and seen.clock_hz * 1e-6, seen.power_w


def _rest(device: Device, highest: float | None, at_most: float) -> float:
    """Wait until the clock has gone down; the seconds that it took."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < at_most:
        time.sleep(0.1)
        # Never at once: a clock may also be read before it has gone down and up again.
        rested = time.perf_counter() - begin > at_most / 3
        mhz, _ = _mhz(device)
        if mhz and highest and rested and mhz < IDLE_SHARE * highest:
            break
    return time.perf_counter() - begin


def _sample(
    figures: Ramp,
    forward: Callable[[], Any],
    device: Device,
    seconds: float,
) -> None:
    clock = device.clock()
    clock.reserve(2)
    begin = time.perf_counter()
    due = 0.0
    while (at := time.perf_counter() - begin) < seconds:
        first = clock.mark()
        forward()
        last = clock.mark()
        clock.synchronize()
        if at >= due:
            start, end = clock.resolve([first, last])
            figures.samples.append(Sample(at, (end - start) * units.NANOSECOND, *_mhz(device)))
            due = at + EVERY_S
        clock.release()
