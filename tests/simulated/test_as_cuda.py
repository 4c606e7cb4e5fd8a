"""The class for NVIDIA's GPUs, driven on the simulated accelerator."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from layerbench.environment.devices.clocks import DeviceEvents
from tests.simulated import Simulator
from tests.simulated.as_cuda import as_cuda
from tests.simulated.process import on_sim

MIB = 2**20


@on_sim
@pytest.mark.parametrize("index", [0, 1])
def test_its_clock(sim: Simulator, index: int) -> None:
    with as_cuda(index) as gpu:
        numbers = torch.ones(4, device=gpu.torch_device)
        clock = gpu.clock()
        clock.reserve(3)
        sim.rules(kernel_ns=5_000)
        marks = [clock.mark()]
        for _ in range(2):
            numbers.add_(1)
            marks.append(clock.mark())
        clock.synchronize()
        start, middle, end = clock.resolve(marks)
        assert (middle - start, end - middle) == (5_000, 5_000)


@on_sim
def test_its_memory(sim: Simulator) -> None:
    sim.rules(limit_bytes=64 * MIB)
    with as_cuda(1) as gpu:
        before = torch.accelerator.memory_allocated(1)
        gpu.begin_peak()
        held = torch.empty(3 * MIB, dtype=torch.uint8, device=gpu.torch_device)
        held + 1  # freed at once
        peak, memory = gpu.peak(), gpu.memory()
        assert peak is not None
        assert (peak.allocated - before, peak.reserved - before) == (6 * MIB, 6 * MIB)
        assert (memory.total_bytes, memory.free_bytes) == (64 * MIB, 61 * MIB - before)
        gpu.forget_freed()
        assert torch.accelerator.memory_reserved(1) - before == 3 * MIB
        with pytest.raises(torch.OutOfMemoryError) as error:
            torch.empty(62 * MIB, dtype=torch.uint8, device=gpu.torch_device)
        assert gpu.is_out_of_memory(error.value)
        assert gpu.requested_bytes(error.value) == 62 * MIB


@on_sim
def test_what_it_says_of_itself(sim: Simulator) -> None:
    with as_cuda(1) as gpu:
        described = gpu.describe()
        assert (described.kind, described.name) == ("cuda", "Simulated GPU")
        assert described.memory_bytes == 16 << 30


@on_sim
def test_a_gpus_queue_is_held_by_cycles(sim: Simulator) -> None:
    # The simulated device's clock is not the host's, which may wait for a core in a launch.
    launched_at_once = mock.patch.object(
        DeviceEvents, "resolve_host", lambda _, marks: [0] * len(marks)
    )
    with launched_at_once, as_cuda(1) as gpu:
        assert gpu.block_queue(1e-3)
        torch.accelerator.synchronize(1)
        before = sim.now_ns()
        assert gpu.block_queue(1e-3)
        torch.accelerator.synchronize(0)
        assert sim.now_ns() == before
        torch.accelerator.synchronize(1)
        assert 990_000 <= sim.now_ns() - before <= 1_010_000
