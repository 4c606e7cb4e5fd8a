"""Memory of the simulated accelerator, counted to the byte."""

from __future__ import annotations

import pytest
import torch

from tests.simulated import Simulator
from tests.simulated.process import on_sim

MIB = 2**20


@on_sim
def test_peaks_of_each_device(sim: Simulator) -> None:
    before = torch.accelerator.memory_allocated(1)
    torch.accelerator.reset_peak_memory_stats(1)
    one = torch.empty(3 * MIB, dtype=torch.uint8, device="sim:1")
    two = one + 1
    del one
    assert torch.accelerator.memory_allocated(1) - before == 3 * MIB
    assert torch.accelerator.max_memory_allocated(1) - before == 6 * MIB
    assert torch.accelerator.max_memory_reserved(1) - before == 6 * MIB
    assert torch.accelerator.memory_allocated(0) == 0
    del two
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats(1)
    assert torch.accelerator.max_memory_allocated(1) == before
    assert torch.accelerator.memory_reserved(1) == before


@on_sim
def test_a_view_has_no_memory_of_its_own(sim: Simulator) -> None:
    numbers = torch.ones(MIB, dtype=torch.uint8, device="sim")
    before = torch.accelerator.memory_allocated()
    views = [numbers[5:], numbers.view(2, -1), *numbers.split(1000)]
    assert torch.accelerator.memory_allocated() == before
    del numbers
    assert torch.accelerator.memory_allocated() == before
    del views
    assert torch.accelerator.memory_allocated() == before - MIB


@on_sim
def test_memory_runs_out_at_the_limit(sim: Simulator) -> None:
    sim.rules(limit_bytes=64 * MIB)
    half = torch.empty(40 * MIB, dtype=torch.uint8, device="sim")
    with pytest.raises(torch.OutOfMemoryError, match=r"of memory\. Tried to allocate 40\.00 MiB\."):
        half.clone()
    with pytest.raises(torch.OutOfMemoryError, match=r"64\.00 MiB of which 24\.00 MiB is"):
        torch.empty(40 * MIB, dtype=torch.uint8, device="sim")
    assert torch.accelerator.get_memory_info() == (24 * MIB, 64 * MIB)
    assert half.add_(1)[0].numel() == 1  # what is there goes on


@on_sim
def test_memory_that_comes_again_holds_zeros(sim: Simulator) -> None:
    """What is skipped is the same each time; the host clears nothing that nobody has written."""
    sim.rules(skip=True)
    for _ in range(3):
        there = torch.empty(MIB, dtype=torch.uint8, device="sim")
        assert there.cpu().count_nonzero() == 0
        there.copy_(torch.ones(MIB, dtype=torch.uint8))
        there.resize_(2 * MIB)
        assert there.cpu().count_nonzero() == MIB
        del there
    unwritten = torch.empty(MIB, dtype=torch.uint8, device="sim")
    address = unwritten.data_ptr()
    del unwritten
    again, other = (torch.empty(MIB, dtype=torch.uint8, device="sim") for _ in range(2))
    assert again.data_ptr() == address != other.data_ptr()
