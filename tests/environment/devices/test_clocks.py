from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from layerbench.environment.devices.clocks import DeviceEvents, ManualClock, PerfCounter


class FakeDevice:
    """A device whose queue stands at `now_ms`; its events notice what a real one would refuse."""

    def __init__(self):
        self.now_ms = 0.0
        self.made = 0
        self.queue = object()
        self.finished_to_ms = 0.0

    def synchronize(self):
        self.finished_to_ms = self.now_ms

    def event(self):
        self.made += 1
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device):
        self.device = device
        self.at_ms = None

    def record(self, queue):
        assert queue is self.device.queue
        self.at_ms = self.device.now_ms

    def elapsed_time(self, end_event, /):
        for event in (self, end_event):
            if event.at_ms is None or event.at_ms > self.device.finished_to_ms:
                raise RuntimeError("event not recorded, or not finished")
        return end_event.at_ms - self.at_ms


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture
def clock(device):
    return DeviceEvents(device.event, device.synchronize, lambda: device.queue)


def marks_at(clock, device, *moments_ms):
    handles = []
    for moment in moments_ms:
        device.now_ms = moment
        handles.append(clock.mark())
    clock.synchronize()
    return handles


def test_positions_are_nanoseconds_after_the_first_mark(clock, device):
    handles = marks_at(clock, device, 7.0, 7.0005, 9.25)
    assert clock.resolve(handles) == [0, 500, 2_250_000]


def test_positions_can_be_asked_for_in_any_order_and_for_some_marks_only(clock, device):
    first, second, third = marks_at(clock, device, 1.0, 2.0, 4.0)
    assert clock.resolve([third, first]) == [3_000_000, 0]
    assert clock.resolve([second]) == [0]
    assert clock.resolve([third, second]) == [2_000_000, 0]
    assert clock.resolve([second], origin=first) == [1_000_000]
    assert clock.resolve([]) == []


def test_milliseconds_are_rounded_to_the_nearest_nanosecond(clock, device):
    handles = marks_at(clock, device, 0.0, 0.1 + 0.2)
    assert clock.resolve(handles) == [0, 300_000]


def test_no_event_is_made_during_a_forward_that_was_reserved_for(clock, device):
    clock.reserve(4)
    assert device.made == 4
    marks_at(clock, device, 1, 2, 3, 4)
    assert device.made == 4


def test_reserving_counts_the_marks_in_use(clock, device):
    clock.reserve(2)
    marks_at(clock, device, 1, 2)
    clock.reserve(3)
    assert device.made == 5
    clock.reserve(1)
    assert device.made == 5


def test_a_forward_longer_than_reserved_makes_events_as_it_goes(clock, device):
    clock.reserve(1)
    handles = marks_at(clock, device, 1, 2, 3)
    assert device.made == 3
    assert clock.resolve(handles) == [0, 1_000_000, 2_000_000]


def test_released_events_serve_the_next_forward(clock, device):
    marks_at(clock, device, 1, 2)
    clock.release()
    handles = marks_at(clock, device, 10, 13)
    assert device.made == 2
    assert clock.resolve(handles) == [0, 3_000_000]


class SinglePrecision(FakeEvent):
    """Tells times as CUDA and `torch.Event` do."""

    def elapsed_time(self, end_event, /):
        return float(np.float32(super().elapsed_time(end_event)))


def test_a_forward_ten_minutes_after_the_first_keeps_its_digits(device):
    clock = DeviceEvents(lambda: SinglePrecision(device), device.synchronize, lambda: device.queue)
    marks_at(clock, device, 0.0)
    late = marks_at(clock, device, 600_000.0, 600_000.005, 600_000.0125)
    assert clock.resolve(late) == [0, 5_000, 12_500]


def test_events_go_to_the_queue_that_was_current_when_they_were_reserved(clock, device):
    clock.reserve(1)
    before, device.queue = device.queue, object()
    with pytest.raises(AssertionError):  # the fake's: it is still recorded on the one from before
        clock.mark()
    device.queue = before
    clock.mark()
    device.queue = object()
    clock.reserve(1)
    clock.mark()


def test_marks_are_not_resolved_before_the_device_is_done(clock, device):
    (first,) = marks_at(clock, device, 1)
    device.now_ms = 2
    late = clock.mark()
    with pytest.raises(RuntimeError):
        clock.resolve([first, late])


def test_the_host_times_stand_beside_the_events(clock, device, monkeypatch):
    host = iter([100, 250, 900])
    monkeypatch.setattr(
        "layerbench.environment.devices.clocks.time.perf_counter_ns", lambda: next(host)
    )
    handles = marks_at(clock, device, 5, 6, 7)
    assert clock.resolve_host(handles) == [100, 250, 900]
    assert clock.resolve_host(handles[1:2]) == [250]


def test_the_host_clock_is_its_own_position():
    clock = PerfCounter()
    clock.reserve(3)
    marks = [clock.mark() for _ in range(3)]
    clock.synchronize()
    assert clock.resolve(marks) == marks
    assert all(before <= after for before, after in pairwise(marks))
    assert clock.resolve_host(marks) is None


def test_a_manual_clock_moves_only_when_told():
    clock = ManualClock()
    before = [clock.mark(), clock.mark()]
    clock.advance(41)
    assert clock.resolve([*before, clock.mark()]) == [0, 0, 41]
    assert clock.resolve_host(before) is None
