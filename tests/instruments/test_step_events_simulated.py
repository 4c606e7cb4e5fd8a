"""Events in a training step on the simulated accelerator: what its rules say comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from layerbench.environment.devices import get
from layerbench.instruments import queue_block
from layerbench.instruments.modules import module_facts
from layerbench.instruments.step_events import StepEventTimer
from layerbench.instruments.step_kernels import BACKWARD, FORWARD, KernelStep, StepKernelTimer
from tests.instruments.test_step_timer import step_of
from tests.models import Calls
from tests.simulated import Simulator
from tests.simulated.process import on_sim

RULES = {
    "kernel_ns": 3_000,
    "launch_ns": 20_000,
    "event_host_ns": 700,
    "event_queue_ns": 900,
    "named_ns": {"aten::mm": 40_000, "aten::addmm": 40_000},
}


class Twice(nn.Module):
    """Runs one layer two times, the second time inside a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.layer, self.layer(x), use_reentrant=False)


class Skips(nn.Module):
    """Leaves its second layer out of every third forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        x = self.layers[0](x)
        return x if self.count % 3 == 0 else self.layers[1](x)


def timers(model: nn.Module) -> tuple[StepEventTimer, StepKernelTimer]:
    facts = module_facts(model)
    paths = [fact.path for fact in facts]
    reachable = frozenset(fact.path for fact in facts if fact.reachable)
    device = get("sim:0")
    timed = (model, paths, reachable, device)
    return StepEventTimer(*timed), StepKernelTimer(*timed)


def table(step: KernelStep) -> list[list[int]]:
    assert step.forward_ns.sum() == step.phases_ns[FORWARD]
    assert (
        step.backward_ns.sum() + step.again_ns.sum() + step.outside_ns == step.phases_ns[BACKWARD]
    )
    assert step.span_ns == sum(step.phases_ns) + step.idle_ns
    return [
        column.tolist()
        for column in (
            step.forward_ns,
            step.forward_inclusive_ns,
            step.backward_ns,
            step.backward_inclusive_ns,
            step.again_ns,
            step.again_inclusive_ns,
        )
    ]


@on_sim
def test_a_steps_times_are_those_of_its_kernels(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    for make in (Twice, lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), Twice())):
        sim.rules(**RULES)
        model = make().to("sim:0")
        step = step_of(model, torch.rand(2, 4, device="sim:0"))
        events, kernels = timers(model)
        for _ in range(2):
            events.run(step)
        by_events, by_kernels = events.run(step), kernels.run(step)
        assert table(by_events) == table(by_kernels)
        assert by_events.phases_ns[FORWARD:] == by_kernels.phases_ns[FORWARD:]
        assert events.notes() == ()
        assert events.is_blocking


@on_sim
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_and_micro_batches_on_the_device(
    reentrant: bool, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the backward is not the forward's there."""
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(**RULES)

    def run(model: Calls, x: torch.Tensor) -> torch.Tensor:
        # The exponential's backward needs its output, so that all of it runs again.
        return checkpoint(lambda x: model.layer(x).exp(), model.layer(x), use_reentrant=reentrant)

    model = Calls(run, layer=nn.Linear(4, 4)).to("sim:0")
    for micro_batches in (1, 2):
        step = step_of(model, torch.rand(2, 4, device="sim:0"))
        step = replace(step, micro_batches=micro_batches)
        events, kernels = timers(model)
        for _ in range(2):
            events.run(step)
        by_events, by_kernels = events.run(step), kernels.run(step)
        assert table(by_events) == table(by_kernels)
        assert by_events.phases_ns[FORWARD:] == by_kernels.phases_ns[FORWARD:]
        forward, again = [3_000, 80_000], [3_000, 40_000]
        assert by_kernels.forward_ns.tolist() == [micro_batches * time for time in forward]
        assert by_kernels.again_ns.tolist() == [micro_batches * time for time in again]
        assert by_kernels.again_inclusive_ns.tolist() == [
            micro_batches * time for time in (43_000, 40_000)
        ]


@on_sim
def test_a_step_that_goes_another_way_still_adds_up(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(**RULES)
    model = Skips().to("sim:0")
    step = step_of(model, torch.rand(2, 4, device="sim:0"))
    events, _ = timers(model)
    steps = [events.run(step) for _ in range(6)]
    assert [table(one)[0] for one in steps[1:]] == [
        [0, 0, 40_000, 40_000 * (number % 3 != 2)] for number in range(1, 6)
    ]
    assert any("went another way" in note for note in events.notes())


@on_sim
def test_nothing_is_left_of_a_step_that_fails(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(**RULES)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to("sim:0")
    step = step_of(model, torch.rand(2, 4, device="sim:0"))
    events, kernels = timers(model)
    events.run(step)
    before = [module.__dict__.keys() for module in model.modules()]
    model[1].weight.requires_grad_(False)
    wrong = step_of(model, torch.rand(2, 3, device="sim:0"))
    with pytest.raises(RuntimeError):
        events.run(wrong)
    assert [module.__dict__.keys() for module in model.modules()] == before
    model[1].weight.requires_grad_(True)
    events.run(step)
    assert table(events.run(step)) == table(kernels.run(step))
