"""`time_layers` on the simulated accelerator."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import layerbench
from layerbench.environment.devices.accelerator import Accelerator
from layerbench.profilers import user_loop, user_loop_device
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim

LAYER_NS = 5_000
MINUTE_NS = 60_000_000_000


class Known(nn.Module):
    """A layer of known length."""

    def __init__(self, sim: Simulator) -> None:
        super().__init__()
        self._sim = [sim]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._sim[0].sleep(LAYER_NS)
        return x


@pytest.fixture(params=[True, False], ids=["kernels", "events"])
def seen(request: pytest.FixtureRequest) -> bool:
    """Whether the profiler sees the device's kernels."""
    return bool(request.param)


@on_sim
def test_ten_minutes_of_a_loop_lose_no_digit(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(user_loop_device, "sees_kernels", lambda _: seen)
    model = nn.Sequential(nn.Linear(2, 2), Known(sim)).to("sim").eval()
    images = torch.ones(1, 2, device="sim")
    sim.rules()
    with torch.no_grad(), layerbench.time_layers(model, flops=False) as layers:
        for _ in range(25):
            model(images)
            sim.spend(MINUTE_NS // 2)
    known, whole = layers.rows[2].inclusive, layers.record.whole
    assert known is not None
    assert known.n > 3
    assert (known.min, known.max) == (5e-6, 5e-6)
    assert whole.n > 15
    assert (whole.min, whole.max) == (6e-6, 6e-6)


@on_sim
def test_no_event_is_made_while_a_forward_is_timed(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(user_loop_device, "sees_kernels", lambda _: seen)
    model = nn.Sequential(*(nn.Identity() for _ in range(20))).to("sim")
    model.append(nn.Linear(1, 1).to("sim"))
    images = torch.ones(1, 1, device="sim")
    # Few, so that the device is waited for now and then, and the same events serve again.
    monkeypatch.setattr(user_loop_device, "FORWARDS", 3)
    recorded = []
    with torch.no_grad(), layerbench.time_layers(model, flops=False) as layers:
        for _ in range(16):
            before = sim.event_count
            model(images)
            recorded.append(sim.event_count - before)
    # Forwards 2, 3, 4 and 8 are looked at; making an event records it once more.
    timed = [count for number, count in enumerate(recorded) if number not in (0, 2, 3, 4, 8)]
    assert timed == [2] * 11
    assert layers.forwards == 16
    assert recorded[0] > 2 * user_loop_device.FORWARDS


@on_sim
def test_no_event_is_made_where_layers_are_marked_on_a_clock_of_the_devices(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_loop, "DRAIN_EVENTS_AT", 50)
    model = nn.Sequential(*(nn.Identity() for _ in range(20))).to("sim")
    images, clock = torch.ones(1, 1, device="sim"), Accelerator("sim").clock()
    recorded = []
    with torch.no_grad(), layerbench.time_layers(model, clock, flops=False) as layers:
        for _ in range(16):
            before = sim.event_count
            model(images)
            recorded.append(sim.event_count - before)
    # Forwards 2, 4 and 8 are those in which functions are timed.
    timed = [count for number, count in enumerate(recorded) if number not in (0, 2, 4, 8)]
    assert timed == [2 * (1 + 20)] * 12
    assert layers.forwards == 16
    assert recorded[0] < 2 * 50 + 6 * (1 + 20)  # and few are made


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
    # What runs; a mode lets the profiler see the operators above it twice.
    ran = [event for event in theirs.events() if event.name == "aten::convolution_overrideable"]
    assert len(ran) == 5 * 5
    assert layers.record.kernels == ()
    assert layers.rows


@on_sim
def test_a_loop_of_a_model_without_parameters_is_timed_where_its_inputs_are(
    sim: Simulator,
) -> None:
    sim.rules(named_ns={"aten::relu": 4_003})
    images = torch.rand(2, 4).to("sim:0")
    model = nn.ReLU()
    with torch.inference_mode(), layerbench.time_layers(model) as layers:
        for _ in range(5):
            model(images)
    assert layers.record.environment.device.kind == "sim"
    assert layers.rows[0].inclusive
    assert round(layers.rows[0].inclusive.median * 1e9) == 4_003
