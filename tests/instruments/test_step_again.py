"""Recomputation told from the backward: known times, whoever asks for it and however."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils import checkpoint as checkpoints
from torch.utils.checkpoint import checkpoint

from layerbench.environment.devices.clocks import ManualClock, PerfCounter
from layerbench.errors import UsageError
from layerbench.instruments.checkpointed import (
    checkpointed,
    checkpointed_paths,
    note_on_checkpointed,
)
from layerbench.instruments.step_timer import TimedStep
from layerbench.records.training_step import STEP_PHASES
from tests.instruments.test_step_timer import Takes, step_of, timer_of

BACKWARD = STEP_PHASES.index("backward")


class Again(torch.autograd.Function):
    """Keeps nothing but its input, and runs a module once more in its backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: nn.Module) -> torch.Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        ctx.module(x)
        return gradient, None


class Block(nn.Module):
    """Takes 10 and 20 there, 1 and 2 back; what is kept needs all of it to run again."""

    def __init__(self, clock: ManualClock, how: str = "plain") -> None:
        super().__init__()
        self.first, self.last = Takes(clock, 10, 1), Takes(clock, 20, 2)
        self.weight = nn.Linear(4, 4)
        self.how = how

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(self.weight(x)) * x).exp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "plain":
            return self.run(x)
        if self.how == "custom":
            return Again.apply(self.run(x), self.first)
        return checkpoint(self.run, x, use_reentrant=self.how == "reentrant")


def timed(
    how: str, paths: Sequence[str] | None = None, micro_batches: int = 1
) -> tuple[dict[str, list[int]], TimedStep]:
    """Of each path: forward, backward and recomputation, each inclusive and by itself."""
    clock = ManualClock()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Block(clock, how), Takes(clock, 30, 3))
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    with checkpointed(model, paths):
        timer, names = timer_of(model, clock)
        step = replace(step_of(model, torch.rand(2, 4), clock), micro_batches=micro_batches)
        timer.instrumented(step)
        found = timer.instrumented(step)
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before
    assert "apply" not in checkpoints.CheckpointFunction.__dict__
    forward, own, again = found.forward, found.backward_ns, found.again_ns
    assert forward is not None
    assert own is not None
    assert again is not None
    assert own.sum() + again.sum() + found.outside_ns == found.phases_ns[BACKWARD]
    columns = (
        forward.inclusive_ns,
        forward.self_ns,
        found.backward_inclusive_ns,
        own,
        found.again_inclusive_ns,
        again,
    )
    return dict(zip(names, map(list, zip(*map(list, columns), strict=True)), strict=True)), found


@pytest.mark.parametrize(
    ("how", "paths"),
    [
        ("non-reentrant", None),
        ("reentrant", None),
        ("plain", ("1",)),
        ("plain", ()),  # the block is the only one with modules within
    ],
)
def test_each_layer_has_forward_backward_and_recomputation(how: str, paths: Any) -> None:
    rows, step = timed(how, paths)
    assert rows == {
        "": [60, 0, 6, 0, 30, 0],
        "0": [0, 0, 0, 0, 0, 0],
        "1": [30, 0, 3, 0, 30, 0],
        "1.first": [10, 10, 1, 1, 10, 10],
        "1.last": [20, 20, 2, 2, 20, 20],
        "1.weight": [0, 0, 0, 0, 0, 0],
        "2": [30, 30, 3, 3, 0, 0],
    }
    assert step.phases_ns == (7, 11, 60, 13, 36, 17)


def test_checkpoints_within_checkpoints_run_again_twice() -> None:
    rows, _ = timed("reentrant", ("1",))
    assert rows["1.first"] == [10, 10, 1, 1, 20, 20]
    assert rows["1"] == [30, 0, 3, 0, 60, 0]


def test_a_module_that_a_node_calls_runs_again() -> None:
    rows, _ = timed("custom")
    assert rows["1.first"] == [20, 20, 1, 1, 10, 10]
    assert rows["1"] == [40, 0, 3, 0, 10, 0]
    assert rows[""][4:] == [10, 0]


def test_micro_batches_are_added_up_and_the_optimizer_comes_once() -> None:
    rows, step = timed("reentrant", micro_batches=3)
    once, _ = timed("reentrant")
    assert rows == {path: [3 * time for time in times] for path, times in once.items()}
    assert step.phases_ns == (21, 33, 180, 39, 108, 17)


def _vit() -> nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=32, num_heads=2, num_classes=4
    )
    model.set_grad_checkpointing()
    return model


def _densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 2, 1, 1), 16, num_classes=4, memory_efficient=True)


@pytest.mark.parametrize(
    ("make", "again"),
    [
        (_vit, {"blocks.0.mlp.act", "blocks.0.attn.qkv", "blocks.1.norm1"}),
        (_densenet, {"features.denseblock1.denselayer1.relu1"}),
    ],
)
def test_libraries_that_checkpoint_are_measured_alike(
    make: Callable[[], nn.Module], again: set[str]
) -> None:
    model = make().train()
    timer, names = timer_of(model, PerfCounter())
    found = timer.instrumented(step_of(model, torch.rand(2, 3, 32, 32)))
    assert found.again_ns is not None
    assert found.backward_ns is not None
    whole = found.backward_ns.sum() + found.again_ns.sum() + found.outside_ns
    assert whole == found.phases_ns[BACKWARD]
    ran = {name for name, time in zip(names, found.again_ns, strict=True) if time}
    assert ran >= again
    assert not ran & {"head", "patch_embed.proj", "classifier", "features.conv0"}


def test_gradients_are_those_without() -> None:
    def gradients(how: str, paths: Sequence[str] | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), Block(ManualClock(), how))
        with checkpointed(model, paths):
            model(torch.rand(2, 4)).sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain = gradients("plain", None)
    for how, paths in (("plain", ()), ("reentrant", None), ("reentrant", ("2",))):
        for mine, theirs in zip(gradients(how, paths), plain, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("layers.fist",), "no module 'layers.fist'; did you mean layers.first"),
        (("layers",), "layers (ModuleDict) is never called itself: name what it holds, such as"),
        ((), "no part that holds other modules and runs: name the modules; it has layers"),
    ],
)
def test_what_cannot_be_checkpointed_is_said_on_one_line(
    paths: tuple[str, ...], message: str
) -> None:
    model = nn.Module()
    model.layers = nn.ModuleDict({"first": nn.Linear(2, 2), "last": nn.ReLU()})
    with pytest.raises(UsageError) as caught:
        checkpointed(model, paths)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_keyword_of_a_forward_may_be_called_as_one_of_checkpoint() -> None:
    class Keyword(nn.Linear):
        def forward(self, x: torch.Tensor, *, debug: bool) -> torch.Tensor:
            return super().forward(x) if debug else x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Keyword(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, debug=True)

    run: Callable[[torch.Tensor], torch.Tensor] = Model()
    with checkpointed(run, ("inner",)):  # type: ignore[arg-type]
        run(torch.rand(2, 2)).sum().backward()
    assert run.inner.weight.grad is not None  # type: ignore[attr-defined]


def linears(count: int) -> list[nn.Module]:
    return [nn.Linear(4, 4) for _ in range(count)]


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = linears(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three(self.two(self.one(x)))


class Nested(nn.Module):
    """Its units lie in lists of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(Unit() for _ in range(2)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            for unit in stage:
                x = unit(x)
        return x


IN_PLACE = nn.ReLU(inplace=True)


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda: nn.Sequential(*linears(9)), ["[0:3]", "[3:6]", "[6:9]"]),
        (lambda: nn.Sequential(IN_PLACE, *linears(2)), ["[1:3]"]),
        (lambda: nn.Sequential(*linears(2), nn.Sequential(*linears(2))), ["[0:2]", "2"]),
        (Nested, [f"stages.{stage}.{unit}" for stage in range(2) for unit in range(2)]),
        (lambda: Wrapper(Unit()), ["inner"]),
        (lambda: nn.Sequential(nn.Sequential(IN_PLACE, *linears(2)), Unit()), ["1"]),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2),
            ["layers.0", "layers.1"],
        ),
    ],
)
def test_without_paths_it_is_blocks_or_parts_of_a_chain(make: Any, taken: list[str]) -> None:
    model = make()
    assert checkpointed_paths(model, ()) == tuple(taken)
    assert note_on_checkpointed(model, ()) == (f"activations checkpointed in {', '.join(taken)}",)
    assert note_on_checkpointed(model, taken) == note_on_checkpointed(model, None) == ()
    assert checkpointed_paths(model, taken) == tuple(taken)


def test_parts_of_a_chain_give_the_gradients_and_modules_that_ran_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*linears(2), nn.Dropout(0.5), IN_PLACE, *linears(2))
    before = [dict(module.__dict__) for module in model.modules()]
    x = torch.rand(2, 4)

    def gradients(paths: Sequence[str] | None) -> tuple[list[torch.Tensor], int]:
        model.zero_grad()
        calls = []
        held = model[1].register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(1)
        with checkpointed(model, paths):
            model(x).sum().backward()
        held.remove()
        return [parameter.grad.clone() for parameter in model.parameters()], len(calls)

    (plain, once), (mine, twice) = gradients(None), gradients(())
    assert (once, twice) == (1, 2)
    assert all(map(torch.equal, plain, mine))
    assert [dict(module.__dict__) for module in model.modules()] == before


def test_what_changes_its_input_in_place_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    with checkpointed(model, ("1",)), pytest.raises(UsageError, match="1 changes its input in"):
        model(torch.rand(2, 4))
    with pytest.raises(UsageError, match=r"1\[0:1\]: ReLU is no nn.Sequential whose modules"):
        checkpointed(model, ("1[0:1]",))
    with pytest.raises(UsageError, match=r"\[0:4\]: it has 3 modules"):
        checkpointed(model, ("[0:4]",))
