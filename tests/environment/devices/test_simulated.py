"""Clocks, memory and the queue of an accelerator, on the simulated one: every figure is known."""

from __future__ import annotations

import gc
import time
from unittest import mock

import pytest
import torch

from layerbench.environment import devices
from layerbench.environment.devices import blocking, cuda
from layerbench.environment.devices.accelerator import Accelerator
from layerbench.environment.devices.clocks import DeviceEvents
from layerbench.instruments.calibration import event_cost
from tests.simulated import Simulator
from tests.simulated.as_cuda import as_cuda
from tests.simulated.process import on_sim

MIB = 2**20


def clock_of(device: Accelerator) -> DeviceEvents:
    clock = device.clock()
    assert isinstance(clock, DeviceEvents)
    return clock


@on_sim
@pytest.mark.parametrize("index", [0, 1])
def test_each_device_has_a_clock_of_its_own(sim: Simulator, index: int) -> None:
    clock = clock_of(Accelerator("sim", index))
    numbers = torch.ones(4, device=f"sim:{index}")
    sim.rules(kernel_ns=13_700_000)
    clock.reserve(2)
    start = clock.mark()
    numbers.add_(1)
    end = clock.mark()
    clock.synchronize()
    assert clock.resolve([start, end]) == [0, 13_700_000]
    assert torch.accelerator.current_device_index() == 0


@on_sim
def test_a_mark_is_one_event_and_nothing_else(sim: Simulator) -> None:
    clock = clock_of(Accelerator("sim"))
    clock.reserve(100)
    sim.rules(event_host_ns=1_000)
    before = sim.now_ns()
    for _ in range(100):
        clock.mark()
    assert (sim.event_count, sim.now_ns() - before) == (100, 100_000)


@on_sim
def test_a_gpu_takes_pytorchs_general_events_and_asks_for_its_queue_once_a_forward(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own events, and a question for the queue at each mark, take the host microseconds."""
    own: list[object] = []
    asked: list[object] = []
    with as_cuda() as gpu:
        usual = cuda.cuda.current_stream
        monkeypatch.setattr(cuda.cuda, "Event", lambda **options: own.append(options))
        monkeypatch.setattr(
            cuda.cuda, "current_stream", lambda index: [asked.append(index), usual(index)][1]
        )
        clock = gpu.clock()
        before = len(asked)
        for _ in range(3):
            clock.reserve(100)
            for _ in range(100):
                clock.mark()
            clock.release()
    assert (len(asked) - before, own) == (3, [])


@on_sim
def test_marks_follow_the_stream_that_is_current_when_a_forward_begins(sim: Simulator) -> None:
    clock = clock_of(Accelerator("sim"))
    sim.rules()
    before = sim.now_ns()
    sim.sleep(1_000_000)
    with torch.Stream(device="sim"):
        clock.reserve(2)
        marks = [clock.mark()]
        sim.sleep(5_000)
        marks.append(clock.mark())
    clock.wait(marks[-1])
    assert clock.has_passed(marks[-1])
    assert clock.resolve(marks) == [0, 5_000]
    assert sim.now_ns() - before == 5_000


@on_sim
def test_a_blocked_queue_holds_what_follows(sim: Simulator) -> None:
    device = Accelerator("sim")
    clock, numbers = clock_of(device), torch.ones(4, device="sim")

    def whole() -> int:
        clock.reserve(2)
        marks = [clock.mark()]
        for _ in range(10):
            numbers.add_(1)
        marks.append(clock.mark())
        clock.synchronize()
        start, end = clock.resolve(marks)
        clock.release()
        return end - start

    sim.rules(launch_ns=5_000, kernel_ns=1_000)
    # The simulated device's clock is not the host's, which may wait for a core in a launch.
    with mock.patch.object(DeviceEvents, "resolve_host", lambda _, marks: [0] * len(marks)):
        assert device.block_queue(1e-4)  # and what a unit takes is measured
        torch.accelerator.synchronize()
        before = sim.now_ns()
        assert device.block_queue(1e-3)
    assert sim.now_ns() - before < 100_000
    behind = whole()
    # What launching the work takes counts as its time when it is measured.
    assert 990_000 <= sim.now_ns() - before < 1_020_000
    assert (whole(), behind) == (10 * 5_000 + 1_000, 10 * 1_000)


@on_sim
def test_the_queue_of_the_device_asked_for_is_held(sim: Simulator) -> None:
    second = Accelerator("sim", 1)
    assert second.block_queue(1e-3)
    sim.rules()
    before = sim.now_ns()
    assert second.block_queue(1e-3)
    torch.accelerator.synchronize(0)
    assert sim.now_ns() == before
    torch.accelerator.synchronize(1)
    assert sim.now_ns() - before >= 1_000_000
    assert torch.accelerator.current_device_index() == 0


@on_sim
def test_a_host_that_is_disturbed_once_shortens_no_later_hold(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed_ns = 0

    def spin(units: int) -> None:
        sim.spend(disturbed_ns)
        sim.sleep(units)

    monkeypatch.setattr(time, "perf_counter_ns", sim.now_ns)
    blocker = blocking.QueueBlocker(clock_of(Accelerator("sim")), spin)
    for disturbed_ns in (0, 5_000_000, 0):
        before = sim.now_ns()
        assert blocker.block(1e-4)
        torch.accelerator.synchronize()
        assert sim.now_ns() - before - disturbed_ns >= 90_000


@on_sim
def test_no_queue_is_held_for_long_or_by_work_that_takes_as_long_to_launch(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Accelerator("sim").block_queue(2 * blocking.LONGEST_S)
    monkeypatch.delattr(torch.sim, "_sleep")
    # In place of it products are launched: these take no time at all.
    monkeypatch.setattr(blocking, "_MOST_STEPS", 3)
    sim.rules(kernel_ns=0, skip=True)
    assert not Accelerator("sim").block_queue(1e-3)
    # And these take ten milliseconds.
    sim.rules(kernel_ns=10_000_000, skip=True)
    assert Accelerator("sim").block_queue(1e-3)


@on_sim
def test_what_an_event_costs_on_the_queue(sim: Simulator) -> None:
    sim.rules(event_host_ns=2_000, event_queue_ns=1_500)
    cost = event_cost(Accelerator("sim"))
    assert cost is not None
    assert cost.queue_s == pytest.approx(1.5e-6)
    assert cost.least_s == pytest.approx(1.5e-6)


def test_a_cpu_has_no_events() -> None:
    assert event_cost(devices.get("cpu")) is None


@on_sim
def test_memory_is_the_devices_own(sim: Simulator) -> None:
    device = Accelerator("sim", 1)
    sim.limit(64 * MIB)
    held = torch.empty(4 * MIB, dtype=torch.uint8, device="sim:1")
    freed = torch.empty(8 * MIB, dtype=torch.uint8, device="sim:1")
    del freed
    memory = device.memory()
    assert (memory.total_bytes, memory.free_bytes) == (64 * MIB, 60 * MIB)
    del held


@on_sim
def test_peaks_are_counted(sim: Simulator) -> None:
    device = Accelerator("sim")
    large = torch.empty(32 * MIB, dtype=torch.uint8, device="sim")
    del large
    gc.collect()
    device.forget_freed()
    device.begin_peak()
    small = torch.empty(4 * MIB, dtype=torch.uint8, device="sim")
    del small
    peak = device.peak()
    assert peak is not None
    assert (peak.allocated, peak.reserved) == (4 * MIB, 4 * MIB)
