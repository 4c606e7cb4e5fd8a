"""`time_layers` where the profiler sees no kernels: layers are timed by events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.environment.devices.accelerator import Accelerator
from layerbench.instruments import event_timer, queue_block
from layerbench.instruments.queue_block import LAUNCHING_WITHIN
from layerbench.profilers import user_loop_device
from layerbench.profilers.event_samples import NO_FUNCTIONS
from layerbench.profilers.user_loop import LiveLayers
from layerbench.profilers.user_loop_device import HOST_ONLY
from layerbench.reporters.documents.device import BELOW_RESOLUTION
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim

# The host takes 20 µs to launch what the device does in less.
RULES = {
    "kernel_ns": 300,
    "launch_ns": 20_000,
    "event_host_ns": 700,
    "event_queue_ns": 900,
    "named_ns": {"aten::convolution": 9_000, "aten::addmm": 6_000, "aten::add": 4_600},
}


def unseen(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees kernels; what the host takes is the simulated host's time."""
    monkeypatch.setattr(user_loop_device, "sees_kernels", lambda _device: False)
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(**RULES)


def timed(
    model: nn.Module, x: torch.Tensor, forwards: int = 9, *, flops: bool = True
) -> LiveLayers:
    model, x = model.to("sim:0").eval(), x.to("sim:0")
    with torch.no_grad(), layerbench.time_layers(model, flops=flops) as layers:
        for _ in range(forwards):
            model(x)
    return layers


def own_ns(layers: LiveLayers) -> dict[str, int]:
    """Own times on the device by path, the longest first."""
    times = {row.path: round(row.self_.median * 1e9) for row in layers.rows if row.self_}
    return dict(sorted(times.items(), key=lambda item: (-item[1], item[0])))


@on_sim
@pytest.mark.parametrize("flops", [True, False])
def test_layers_of_a_launch_bound_loop_have_their_true_times(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, flops: bool
) -> None:
    unseen(sim, monkeypatch)
    layers = timed(Small(), torch.rand(2, 3, 8, 8), flops=flops)
    convolutions = [
        "blocks.0.conv",
        "blocks.0.project",
        "blocks.1.conv",
        "blocks.1.project",
        "stem",
    ]
    times = own_ns(layers)
    assert times == {
        **dict.fromkeys(convolutions, 9_000),
        "head": 6_000,
        **dict.fromkeys(["blocks.0", "blocks.1"], 4_600),
        **dict.fromkeys(["", "blocks.0.relu", "blocks.1.relu"], 300),
        "blocks": 0,
    }
    record = layers.record
    rounds, root = record.device_rounds, record.root
    assert rounds is not None
    assert root is not None
    assert root.inclusive is not None
    # Forwards 3, 4 and 8: the rows add up to each of them.
    assert (rounds.how, rounds.idle, rounds.span.n) == ("events", None, 3)
    assert (
        round(rounds.span.median * 1e9) == round(root.inclusive.median * 1e9) == sum(times.values())
    )
    assert rounds.resolution_s == pytest.approx(4.5e-6)
    assert record.whole.median > 3 * rounds.span.median
    assert all(row.host_inclusive for row in record.layers if row.calls)
    assert record.absent["functions"] == NO_FUNCTIONS
    assert record.notes == ()


@on_sim
def test_rows_below_the_clocks_resolution_are_marked_in_every_format(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    record = timed(Small(), torch.rand(2, 3, 8, 8)).record
    for name in ("txt", "md", "html"):
        assert BELOW_RESOLUTION in " ".join(reporters.render(name, record).split())
    assert "resolution_s" in reporters.render("csv", record)


@on_sim
def test_a_loop_computes_what_it_computes_alone(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)

    def trained(model: nn.Module) -> list[torch.Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(0)
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.rand(2, 4, device="sim:0")).square().mean().backward()
            optimizer.step()
        return [parameter.detach().cpu() for parameter in model.parameters()]

    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).to("sim:0")
    alone = trained(deepcopy(model))
    with layerbench.time_layers(model) as layers:
        timed_ = trained(model)
    assert all(map(torch.equal, alone, timed_))
    assert own_ns(layers)["0"] == 6_000


class Waits(nn.Module):
    """Looks at a value, for which the host waits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.sum().item()


@on_sim
def test_a_forward_that_waits_for_the_device_says_what_its_times_hold(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    layers = timed(nn.Sequential(Waits()), torch.rand(2, 4), forwards=18)
    assert layers.notes == (
        "the host waits for the device in the forward, or takes too long to launch it: launching "
        "is within device times",
    )
    # Its queue was held in three of them, for no longer than a second each.
    assert sum(kernel.length_ns > 1_000_000_000 for kernel in sim.kernels()) == 0


@on_sim
def test_a_queue_that_cannot_be_blocked_is_no_error_of_the_loops(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise RuntimeError("out of memory")

    unseen(sim, monkeypatch)
    monkeypatch.setattr(event_timer, "event_cost", lambda _device: None)
    monkeypatch.setattr(Accelerator, "block_queue", full)
    layers = timed(nn.Sequential(nn.Linear(4, 4)), torch.rand(2, 4))
    assert layers.notes == (LAUNCHING_WITHIN,)
    assert layers.record.device_rounds is not None

    monkeypatch.setattr(event_timer, "event_cost", full)
    layers = timed(nn.Sequential(nn.Linear(4, 4)), torch.rand(2, 4))
    assert layers.forwards == 9
    assert layers.notes == (HOST_ONLY,)
    assert layers.record.absent["device times"].endswith("out of memory")


@on_sim
def test_a_loop_too_short_to_be_looked_at_says_whose_times_it_has(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    layers = timed(nn.Sequential(nn.Linear(4, 4)), torch.rand(2, 4), forwards=3)
    assert HOST_ONLY in layers.notes
    assert layers.record.device_rounds is None


@on_sim
def test_a_forward_that_fails_while_it_is_observed_is_observed_again(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    model, good = nn.Sequential(nn.Linear(4, 4)).to("sim:0"), torch.rand(2, 4).to("sim:0")
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for number in range(10):
            with suppress(RuntimeError):
                model(good[:, :3] if number == 2 else good)
    assert layers.forwards == 9
    rounds = layers.record.device_rounds
    assert rounds is not None
    assert (rounds.span.n, round(rounds.span.max * 1e9)) == (3, 6_000)


@on_sim
def test_what_the_loops_owner_does_between_looks_is_seen(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward that he puts there afterwards is called, and stays."""
    unseen(sim, monkeypatch)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to("sim:0"), torch.rand(2, 4)
    calls = []

    def counted(own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda x: (calls.append(1), own(x))[1]

    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for number in range(9):
            if number == 6:
                model[0].forward = counted(model[0].forward)
            model(x.to("sim:0"))
    assert len(calls) == 3
    assert own_ns(layers)["0"] == 6_000
    assert "forward" in model[0].__dict__
