"""Peaks and ceilings on the simulated accelerator: of one run, whatever ran before it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import layerbench
from layerbench import zoo
from layerbench.instruments import ceilings
from layerbench.profilers.memory.measured import profile_memory
from layerbench.profilers.sweep import run_sweep
from tests.simulated import Simulator
from tests.simulated.as_cuda import as_cuda
from tests.simulated.process import on_sim
from tests.support.paths import ROOT

SMALL, LARGE = f"{ROOT}/tests/models.py:digit_reader", f"{__file__}:large"


def large() -> nn.Module:
    """Two million parameters, far more than all tensors of the other."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10_000))


@on_sim
def test_a_point_of_a_sweep_has_the_peak_that_it_has_alone(sim: Simulator) -> None:
    sim.rules(kernel_ns=10_000_000)  # few forwards warm it up
    with as_cuda() as device:
        found = run_sweep(
            [SMALL, LARGE, SMALL],
            (1, 2),
            (8,),
            device,
            precision=None,
            memory_format="contiguous",
            threads=None,
            seconds=6.0,
        )
    assert {point.memory for point in found.points} == {"measured"}
    peaks = [(point.allocated, point.reserved) for point in found.points]
    assert peaks[:2] == peaks[4:]
    assert all(allocated == reserved for allocated, reserved in peaks)
    assert peaks[2][0] > 4 * 3 * 8 * 8 * 10_000 > 2 * peaks[1][0]


@on_sim
def test_memory_that_the_allocator_keeps_of_an_earlier_run_is_not_counted(sim: Simulator) -> None:
    with as_cuda() as device:
        alone, between, again = (
            profile_memory(zoo.resolve(model, "1x3x8x8"), device).allocator
            for model in (SMALL, LARGE, SMALL)
        )
    assert again == alone
    assert between.reserved > 2 * alone.reserved


@on_sim
def test_a_memory_ceiling_is_the_roof_though_launching_takes_time(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of 8 MiB takes 42 µs at 400 bytes a nanosecond, and a launch 5 µs."""
    sim.rules(kernel_ns=0, bytes_per_ns=400, launch_ns=5_000, limit_bytes=64 * 2**20, skip=True)
    monkeypatch.setattr(ceilings, "MOST_REPEATS", 5)
    with as_cuda() as device:
        copied = ceilings._fastest_copy(device, "float32")
    assert copied.bytes_per_s == pytest.approx(400e9, rel=0.01)


@on_sim
def test_ceilings_of_a_device_whose_work_the_host_does(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's 10 ms are minutes of the host: 600 GFLOPs a product, 48 GB in copies of 2 GiB."""
    sim.rules(
        kernel_ns=0, bytes_per_ns=4_800, flops_per_ns=60_000, launch_ns=5_000, virtual_host=True
    )
    monkeypatch.setattr(ceilings, "LONGEST_S", 0.2)
    monkeypatch.setattr(ceilings, "BUFFER_BYTES", 2**24)
    model, inputs = nn.Linear(8, 8).to("sim:0"), torch.rand(1, 8).to("sim:0")
    record = layerbench.profile(model, inputs, warmup=0, iterations=2, ceilings=True)
    assert record.ceilings is not None
    assert "buffer of 16 MiB" in record.ceilings.how
    # What a launch takes is a large part of a small product, and of few copies.
    assert 0.5 * 4_800e9 < record.ceilings.bytes_per_s <= 4_800e9
    side = re.search(r"(\d+) x \d+ matrices", record.ceilings.how)
    assert side is not None
    assert int(side[1]) < 4096
