"""What an event costs the host and the queue, by every way to record it; how the queue is held."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.gpu.device_queue import Recording, hold, host_s, recordings, span_s, waiter
from benchmarks.gpu.step import Figures, Settings, tried
from layerbench import units
from layerbench.environment.devices import Device
from layerbench.instruments.calibration import mark_cost_s

EVENTS = 1000
REPEATS = 9
# Longer than the host needs to record them all.
BLOCKED_S = 0.02


@dataclass
class Way:
    """One way to record an event.

    Attributes:
        host_s: of the host, for one: the median of several loops.
        queue_s: of the queue, for one: the span of 1,000 that all waited in the queue, shared out.
        between_s: median between two neighbours; ``least_s``, ``most_s``: the extremes.
        as_issued_s: the span of 1,000 as the host issues them, shared out.
    """

    name: str
    host_s: float
    queue_s: float | None
    between_s: float | None
    least_s: float | None
    most_s: float | None
    as_issued_s: float


@dataclass
class EventCosts(Figures):
    """Costs by way.

    Attributes:
        mark_s: a mark of layerbench's own clock, as reports state it.
        held: seconds for which the queue was to be held, and seconds that it was.
    """

    ways: list[Way] = field(default_factory=list)
    mark_s: float | None = None
    held: list[tuple[float, float]] = field(default_factory=list)

    def headline(self) -> str:
        """The cheapest way, and layerbench's own mark."""
        mark = "" if self.mark_s is None else f"a mark {units.seconds(self.mark_s)}"
        if not self.ways:
            return mark
        best = min(self.ways, key=lambda way: way.host_s)
        queue = "" if best.queue_s is None else f", {units.seconds(best.queue_s)} of the queue"
        held = [f"{units.seconds(was)} where {units.seconds(asked)} were asked for"
                for asked, was in self.held]  # fmt: skip
        text = f"{best.name} {units.seconds(best.host_s)} of the host{queue}; {mark}"
        return f"{text}; queue held for {', '.join(held)}" if held else text

    def table(self) -> list[list[str]]:
        """A row a way."""
        if not self.ways:
            return []
        header = ["way", "host", "queue, blocked", "neighbours", "least", "most", "as issued"]
        return [header, *([way.name, *map(_time, _times_of(way))] for way in self.ways)]


def _times_of(way: Way) -> list[float | None]:
    return [
        way.host_s,
        way.queue_s,
        way.between_s,
        way.least_s,
        way.most_s,
        way.as_issued_s,
    ]


def _time(value: float | None) -> str:
    return "-" if value is None else units.seconds(value)


def run(settings: Settings) -> Iterator[EventCosts]:
    """Each way in turn."""
    device = settings.opened()
    figures = EventCosts()
    figures.mark_s = mark_cost_s(device.clock())
    if device.kind == "cpu":
        figures.absent["events"] = "a CPU has none: its clock is the host's"
        yield figures
        return
    figures.held = tried(figures, "a blocked queue", _held, device) or []
    yield figures
    for recording in recordings(device):
        way = tried(figures, recording.name, _way, recording, device, bool(figures.held), settings)
        if way is not None:
            figures.ways.append(way)
        yield figures


def _held(device: Device) -> list[tuple[float, float]]:
    hold(device, 0.001)  # the first also finds out how fast the device counts
    return [(asked, span_s(device, partial(hold, device, asked))) for asked in (0.001, 0.01)]


def _way(recording: Recording, device: Device, blocked: bool, settings: Settings) -> Way:
    wait = waiter(device)
    events = [recording.make() for _ in range(settings.either(EVENTS, 50))]
    record = [recording.record(event) for event in events]

    def record_all() -> None:
        for one in record:
            one()

    record_all()  # the driver makes an event when it is first recorded
    wait()
    host = [host_s(record_all) / len(events) for _ in range(settings.either(REPEATS, 2))]
    wait()
    as_issued = _span_s(events)
    between = None
    if blocked:
        hold(device, BLOCKED_S)
        record_all()
        wait()
        between = [_elapsed_s(one, other) for one, other in pairwise(events)]
    return Way(
        name=recording.name,
        host_s=statistics.median(host),
        queue_s=_span_s(events) if between else None,
        between_s=statistics.median(between) if between else None,
        least_s=min(between) if between else None,
        most_s=max(between) if between else None,
        as_issued_s=as_issued,
    )


def _span_s(events: list[Any]) -> float:
    """From the first to the last, shared out among those between neighbours."""
    return _elapsed_s(events[0], events[-1]) / (len(events) - 1)


def _elapsed_s(start: Any, end: Any) -> float:
    milliseconds: float = start.elapsed_time(end)
    return milliseconds * 1e-3
