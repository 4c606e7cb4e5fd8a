"""Kernels of a step by phase and module: by made-up events, and by a real step's operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from layerbench.environment.devices import get
from layerbench.instruments import step_kernels
from layerbench.instruments.kernels import RANGE, HostEvent, Kernel, events_of
from layerbench.instruments.modules import module_facts
from layerbench.instruments.step_kernels import (
    MARK,
    NODE,
    KernelStep,
    StepKernelTimer,
    StepPlaces,
    added_up,
)
from layerbench.instruments.step_places import Places
from layerbench.records.training_step import STEP_PHASES
from tests.instruments.test_step_timer import step_of
from tests.models import Calls


def test_made_up_events() -> None:
    """Two threads; a kernel that nobody launched; what accumulates comes after its node."""
    marks = [HostEvent(f"{MARK}{n}", 90 + n, 1, 100 * n, 100 * n + 1) for n in range(7)]
    host = [
        *marks,
        HostEvent("aten::copy_", 1, 1, 110, 120),
        HostEvent(f"{RANGE}1", 2, 1, 210, 250),
        HostEvent("aten::mm", 3, 1, 220, 230, sequence=5),
        HostEvent("aten::add", 4, 1, 260, 270, sequence=6),
        HostEvent("aten::mse", 5, 1, 310, 320, sequence=7),
        HostEvent(f"{NODE}: Mse", 6, 2, 410, 420, sequence=7),
        HostEvent("aten::a", 7, 2, 411, 412),
        HostEvent(f"{NODE}: Add", 8, 2, 430, 440, sequence=6),
        HostEvent("aten::b", 9, 2, 431, 432),
        HostEvent(f"{NODE}: Mm", 10, 2, 450, 460, sequence=5),
        HostEvent("aten::c", 11, 2, 451, 452),
        HostEvent(f"{NODE}: AccumulateGrad", 12, 2, 470, 480),
        HostEvent("aten::d", 13, 2, 471, 472),
        HostEvent("aten::step", 14, 1, 510, 520),
    ]
    lengths = [
        (1, 3),
        (3, 10),
        (4, 20),
        (5, 1),
        (7, 2),
        (9, 30),
        (11, 40),
        (0, 5),
        (13, 6),
        (14, 8),
    ]
    kernels, at = [], 1000
    for launched_by, length in lengths:
        kernels.append(Kernel("k", launched_by, at, at + length))
        at += length + 100
    # Row 1 was called once, while autograd counted from 5 to 6; the forward went to 7.
    places = Places([(1, 210, 250, 5, 6)], {1: 0}, 5, 7)
    step = added_up(host, kernels, [StepPlaces(places)], 2)
    assert step.phases_ns == (0, 3, 30, 1, 2 + 30 + 40 + 5 + 6, 8)
    assert step.idle_ns == 9 * 100
    assert step.span_ns == step.idle_ns + sum(step.phases_ns)
    assert step.forward_ns.tolist() == [20, 10]
    assert step.forward_inclusive_ns.tolist() == [30, 10]
    assert step.backward_ns.tolist() == [30, 46]
    assert step.backward_inclusive_ns.tolist() == [76, 46]
    assert step.outside_ns == 2 + 5  # the loss, and what nobody launched


def test_a_step_without_kernels() -> None:
    step = added_up([], [], [StepPlaces(Places([], {}, 0, 0))], 1)
    assert (step.span_ns, step.idle_ns, step.outside_ns) == (0, 0, 0)


def step_kernels_of(
    model: nn.Module, batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], KernelStep]:
    """A real step on the CPU; each product of matrices stands for a kernel of 100 ns."""

    def seen(results: object) -> tuple[list[HostEvent], list[Kernel]]:
        host, none = events_of(results)
        assert none == []
        products = [event for event in host if event.name in ("aten::mm", "aten::addmm")]
        products.sort(key=lambda event: event.start_ns)
        return host, [Kernel("k", e.number, 500 * n, 500 * n + 100) for n, e in enumerate(products)]

    monkeypatch.setattr(step_kernels, "events_of", seen)
    facts = module_facts(model)
    paths = [fact.path for fact in facts]
    timer = StepKernelTimer(model, paths, frozenset(paths), get("cpu"))
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    timer.run(step_of(model, batch))
    step = timer.run(step_of(model, batch))
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before
    return paths, step


def test_products_of_a_real_step_belong_to_their_layers(monkeypatch) -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Sequential(shared, shared))
    paths, step = step_kernels_of(model, torch.rand(2, 4), monkeypatch)
    forward = dict(zip(paths, step.forward_ns.tolist(), strict=True))
    backward = dict(zip(paths, step.backward_ns.tolist(), strict=True))
    # The first layer's input needs no gradient: one product, not two.
    assert forward == {"": 0, "0": 100, "1": 0, "2": 0, "2.0": 200}
    assert backward == {"": 0, "0": 100, "1": 0, "2": 0, "2.0": 400}
    inclusive = dict(zip(paths, step.backward_inclusive_ns.tolist(), strict=True))
    assert inclusive == {"": 500, "0": 100, "1": 0, "2": 400, "2.0": 400}
    phases = dict(zip(STEP_PHASES, step.phases_ns, strict=True))
    assert phases == {
        "data": 0, "copy": 0, "forward": 300, "loss": 0, "backward": 500, "optimizer": 0
    }  # fmt: skip
    assert step.outside_ns == 0
    assert step.span_ns == step.idle_ns + 800


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_runs_again_is_told_apart(reentrant, monkeypatch) -> None:
    def run(self: Calls, x: torch.Tensor) -> torch.Tensor:
        return self.after(checkpoint(self.inner, self.before(x), use_reentrant=reentrant))

    layers = {name: nn.Linear(4, 4) for name in ("before", "inner", "after")}
    paths, step = step_kernels_of(Calls(run, **layers), torch.rand(2, 4), monkeypatch)
    backward = dict(zip(paths, step.backward_ns.tolist(), strict=True))
    again = dict(zip(paths, step.again_ns.tolist(), strict=True))
    assert backward == {"": 0, "before": 100, "inner": 200, "after": 200}
    assert again == {"": 0, "before": 0, "inner": 100, "after": 0}
    assert step.again_inclusive_ns.tolist()[0] == 100
    assert {key.module for key in step.kernels if key.recomputed} == {paths.index("inner")}
    assert step.outside_ns == 0


def test_a_step_that_raises_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    timer = StepKernelTimer(model, ["", "0"], frozenset({"", "0"}), get("cpu"))
    with pytest.raises(RuntimeError, match="shapes"):
        timer.run(step_of(model, torch.rand(2, 3)))
    assert all("forward" not in module.__dict__ for module in model.modules())
