"""Forward and backward by module: known times, in-place layers, everything adds up."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from layerbench.environment.devices.clocks import ManualClock, PerfCounter
from layerbench.instruments.modules import module_facts
from layerbench.instruments.step_nodes import _as_they_run
from layerbench.instruments.step_timer import Step, StepTimer
from layerbench.records.training_step import STEP_PHASES
from tests.models import Small


class Passing(torch.autograd.Function):
    """Lets a known time pass on a manual clock, in the forward and in the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, clock: ManualClock, there: int, back: int):
        ctx.clock, ctx.back = clock, back
        clock.advance(there)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor):
        ctx.clock.advance(ctx.back)
        return gradient, None, None, None


class Takes(nn.Module):
    def __init__(self, clock: ManualClock, there: int, back: int) -> None:
        super().__init__()
        self.clock, self.there, self.back = clock, there, back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Passing.apply(x, self.clock, self.there, self.back)


def timer_of(model: nn.Module, clock) -> tuple[StepTimer, list[str]]:
    facts = module_facts(model)
    paths = [fact.path for fact in facts]
    reachable = frozenset(fact.path for fact in facts if fact.reachable)
    return StepTimer.of_modules(model, paths, reachable, clock), paths


def step_of(model: nn.Module, batch: torch.Tensor, clock: ManualClock | None = None) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def passes(nanoseconds: int) -> None:
        if clock is not None:
            clock.advance(nanoseconds)

    def fetch() -> torch.Tensor:
        passes(7)
        return batch

    def move(x: torch.Tensor) -> torch.Tensor:
        passes(11)
        return x

    def loss(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        passes(13)
        return output.square().mean()

    def update() -> None:
        passes(17)
        optimizer.step()
        optimizer.zero_grad()

    return Step(fetch, move, model, loss, update)


def test_known_times() -> None:
    """Three layers, the second in a container, with 10, 20, 30 there and 1, 2, 3 back."""
    clock = ManualClock()
    model = nn.Sequential(
        nn.Linear(4, 4),
        Takes(clock, 10, 1),
        nn.Sequential(Takes(clock, 20, 2)),
        Takes(clock, 30, 3),
    )
    timer, paths = timer_of(model, clock)
    step = step_of(model, torch.rand(2, 4), clock)
    expected = dict(zip(STEP_PHASES, (7, 11, 60, 13, 6, 17), strict=True))
    assert dict(zip(STEP_PHASES, timer.untouched(step).phases_ns, strict=True)) == expected
    for _ in range(2):
        timed = timer.instrumented(step)
        assert dict(zip(STEP_PHASES, timed.phases_ns, strict=True)) == expected
        assert timed.forward is not None
        assert timed.backward_ns is not None
        inclusive = dict(zip(paths, timed.forward.inclusive_ns.tolist(), strict=True))
        assert inclusive == {"": 60, "0": 0, "1": 10, "2": 20, "2.0": 20, "3": 30}
        back = dict(zip(paths, timed.backward_ns.tolist(), strict=True))
        assert back == {"": 0, "0": 0, "1": 1, "2": 0, "2.0": 2, "3": 3}
        assert timed.outside_ns == 0


def test_what_the_model_itself_does_last_is_its_own() -> None:
    """Also of a model without submodules."""
    clock = ManualClock()
    model = Takes(clock, 10, 4)
    model.weight = nn.Parameter(torch.ones(()))
    model.forward = lambda x: Takes.forward(model, x * model.weight)
    timer, _ = timer_of(model, clock)
    timed = timer.instrumented(step_of(model, torch.rand(2, 4), clock))
    assert timed.backward_ns is not None
    assert (timed.backward_ns.tolist(), timed.outside_ns) == ([4], 0)


@pytest.mark.parametrize(
    "make",
    [
        Small,
        lambda: torchvision.models.resnet18(num_classes=4),  # in-place ReLU
        lambda: torchvision.models.densenet121(num_classes=4),  # concatenations, checkpoint off
        lambda: torchvision.models.VisionTransformer(64, 32, 2, 2, 32, 64, num_classes=4),
    ],
    ids=["small", "resnet18", "densenet121", "vit"],
)
def test_everything_adds_up(make) -> None:
    """Also with in-place layers; the weights come out as without the timer."""
    torch.manual_seed(0)
    model, twin = make().train(), make().train()
    twin.load_state_dict(model.state_dict())
    batch = torch.rand(2, 3, 64, 64)
    timer, paths = timer_of(model, PerfCounter())
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    torch.manual_seed(1)
    timed = timer.instrumented(step_of(model, batch))
    torch.manual_seed(1)
    bare, _ = timer_of(twin, PerfCounter())
    bare.untouched(step_of(twin, batch))

    phases = dict(zip(STEP_PHASES, timed.phases_ns, strict=True))
    assert timed.forward is not None
    assert timed.backward_ns is not None
    assert int(timed.forward.self_ns.sum()) == phases["forward"]
    assert int(timed.backward_ns.sum()) + timed.outside_ns == phases["backward"]
    back = dict(zip(paths, timed.backward_ns.tolist(), strict=True))
    with_weights = [
        path
        for path, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False)) and "unused" not in path
    ]
    assert all(back[path] > 0 for path in with_weights)
    assert timed.outside_ns < phases["backward"] / 2
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    after = {path: dict(module.__dict__) for path, module in model.named_modules()}
    assert {path: a.keys() for path, a in after.items()} == {
        path: b.keys() for path, b in before.items()
    }


class Shares(nn.Module):
    """One layer called twice, its weight used once more, and branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.layer(x)
        second = self.other(torch.relu(first))
        view = second[:, :2]
        view.mul_(2)
        return self.layer(first + second) @ self.layer.weight


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Small, (2, 3, 16, 16)),
        (Shares, (2, 4)),
        (lambda: torchvision.models.densenet121(num_classes=4), (2, 3, 64, 64)),
        (lambda: torchvision.models.googlenet(num_classes=4, init_weights=False), (2, 3, 64, 64)),
        (lambda: torchvision.models.swin_t(num_classes=4), (1, 3, 64, 64)),
    ],
    ids=["small", "shares", "densenet121", "googlenet", "swin_t"],
)
def test_nodes_run_in_the_order_that_is_expected(make, shape) -> None:
    output = make().train()(torch.rand(shape))
    tensors = [output] if isinstance(output, torch.Tensor) else list(output)
    loss = torch.stack([tensor.square().mean() for tensor in tensors]).sum()
    ran = []
    turns = _as_they_run(loss)
    for node in itertools.chain(*turns):
        node.register_prehook(lambda _, node=node: ran.append(node))
    loss.backward()
    assert len(turns) > 5
    position = 0
    for first, *accumulating in turns:
        assert ran[position] is first
        position += 1 + len(accumulating)
        assert set(ran[position - len(accumulating) : position]) == set(accumulating)
    assert position == len(ran)


def test_a_step_that_raises_leaves_nothing_behind() -> None:
    model = Small()
    timer, _ = timer_of(model, PerfCounter())
    step = step_of(model, torch.rand(2, 5, 8, 8))
    with pytest.raises(RuntimeError, match="channels"):
        timer.instrumented(step)
    assert all("forward" not in module.__dict__ for module in model.modules())


class Long(nn.Module):
    """A graph so long that to free it by recursion ends the process."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.weight
        for _ in range(130_000):
            x = x + 1
        return x


def test_a_graph_of_a_hundred_thousand_nodes_is_freed() -> None:
    model = Long()
    timer, _ = timer_of(model, PerfCounter())
    step = timer.instrumented(step_of(model, torch.ones(1)))
    assert step.backward_ns is not None
    assert step.backward_ns.sum() + step.outside_ns == step.phases_ns[STEP_PHASES.index("backward")]
