"""Device times by events on the simulated accelerator: what its rules say comes out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerbench.environment.devices import get
from layerbench.instruments import queue_block
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.modules import module_facts
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim

RULES = {
    "named_ns": {"aten::convolution": 9_000, "aten::addmm": 4_000, "aten::add": 600},
    "kernel_ns": 300,
    "launch_ns": 5_000,
    "event_host_ns": 700,
    "event_queue_ns": 900,
}


def timed(model: nn.Module, x: torch.Tensor, device: str) -> tuple[EventTimer, dict[str, int]]:
    """The third forward's own times by path; of modules that ran."""
    model, x = model.eval().to(device), x.to(device)
    facts = module_facts(model)
    paths = [fact.path for fact in facts]
    timer = EventTimer(model, paths, frozenset(paths), get(device))
    with torch.inference_mode():
        for _ in range(3):
            forward = timer.run(lambda: model(x))
    assert forward.self_ns.sum() == forward.span_ns
    own = dict(zip(paths, forward.self_ns.tolist(), strict=True))
    return timer, {path: time for path, time in own.items() if time}


@on_sim
def test_kernels_come_out_without_launching_and_without_the_events(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    for device in ("sim:0", "sim:1"):
        sim.rules(**RULES)
        timer, own = timed(Small(), torch.rand(2, 3, 8, 8), device)
        block = {"conv": 9_000, "relu": 300, "project": 9_000, "": 600}
        blocks = {
            f"blocks.{n}{'.' * bool(name)}{name}": time
            for n in (0, 1)
            for name, time in block.items()
        }
        pooling = own.pop("")
        assert own == {"stem": 9_000, **blocks, "head": 4_000}
        assert pooling == 300
        assert timer.event_cost_ns == 900
        assert timer.notes() == ()


@on_sim
def test_events_stand_only_where_work_ends(sim: Simulator) -> None:
    sim.rules(**RULES)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Flatten(), nn.ReLU()).to("sim").eval()
    x = torch.rand(2, 4, device="sim")
    timer = EventTimer(model, ["", *"0123"], frozenset(["", *"0123"]), get("sim"))
    timer.run(lambda: model(x))
    timer.run(lambda: model(x))
    before = sim.event_count
    forward = timer.run(lambda: model(x))
    # The start, the ends of two layers, the end; the block has two of its own.
    assert sim.event_count - before == 4 + 2
    assert forward.self_ns.tolist() == [0, 4_000, 0, 0, 300]


@on_sim
def test_a_forward_that_waits_for_the_device_says_that_launching_is_within(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.sum().item()

    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(**RULES)
    model = nn.Sequential(Waits()).to("sim")
    x = torch.rand(2, 4, device="sim")
    timer = EventTimer(model, ["", "0"], frozenset(["", "0"]), get("sim"))
    for _ in range(5):
        timer.run(lambda: model(x))
    assert timer.notes() == (
        "the host waits for the device in the forward, or takes too long to launch it: launching "
        "is within device times",
    )
