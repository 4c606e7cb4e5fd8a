"""`time_layers` on the simulated accelerator: kernels of some forwards, the host of the others."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import layerbench
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim


@on_sim
def test_layers_of_a_loop_have_the_lengths_of_their_kernels(sim: Simulator) -> None:
    sim.rules(kernel_ns=10, launch_ns=7_000, named_ns={"aten::convolution": 5_003})
    model, x = Small().to("sim:0").eval(), torch.rand(2, 3, 8, 8).to("sim:0")
    with torch.inference_mode(), layerbench.time_layers(model) as layers:
        for _ in range(9):
            model(x)
    record = layers.record
    rows = {row.path: row for row in record.layers}
    stem = rows["blocks.0.conv"]
    assert stem.self_
    assert stem.host_self
    assert round(stem.self_.median * 1e9) == 5_003
    assert stem.kernels == 1
    assert rows["blocks.0.add()"].self_
    # The whole is that of the forwards that were not looked at: here the host's launching.
    kernels = rows[""].kernels
    assert kernels
    assert record.whole.n == 5
    assert record.whole.max == pytest.approx((kernels * 7_000 + 10) * 1e-9, abs=1e-12)
    assert record.device_rounds
    assert record.device_rounds.span.n == 3
    assert sum(kernel.calls for kernel in record.kernels) == kernels


@on_sim
def test_a_profiler_of_the_loops_owner_loses_nothing(sim: Simulator) -> None:
    model, x = Small().to("sim:0").eval(), torch.rand(2, 3, 8, 8).to("sim:0")
    with (
        torch.inference_mode(),
        layerbench.time_layers(model) as layers,
        profile(activities=[ProfilerActivity.CPU]) as theirs,
    ):
        for _ in range(5):
            model(x)
    convolutions = [event for event in theirs.events() if event.name == "aten::conv2d"]
    assert len(convolutions) == 5 * 5
    assert layers.record.kernels == ()
    assert layers.rows
