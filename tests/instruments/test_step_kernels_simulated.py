"""Kernels of a step on the simulated accelerator."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from layerbench.environment.devices import get
from layerbench.instruments.step_kernels import BACKWARD, StepKernelTimer
from tests.instruments.test_step_timer import step_of
from tests.models import Calls
from tests.simulated import Simulator
from tests.simulated.process import on_sim


@on_sim
def test_what_adds_up_a_gradient_belongs_to_the_modules_of_its_parameter(sim: Simulator) -> None:
    """The model uses its layer's weight itself, and that goes backward last."""
    sim.rules(kernel_ns=3_000, named_ns={"aten::mm": 40_000, "aten::addmm": 40_000})
    model = Calls(lambda self, x: self.layer(x * self.layer.weight), layer=nn.Linear(4, 4))
    model.to("sim:0")
    timer = StepKernelTimer(model, ["", "layer"], frozenset({"", "layer"}), get("sim"))
    step = replace(step_of(model, torch.rand(4, 4, device="sim:0")), update=lambda: None)
    timer.run(step)
    seen = timer.run(step)  # gradients are there, to be added to
    adding = {
        key.module: value for key, value in seen.kernels.items() if key.function == "AccumulateGrad"
    }
    assert adding == {1: (2, 6_000)}
    # Of the layer two products and a sum; of the model a product and what adds the two ways up.
    assert seen.backward_ns.tolist() == [6_000, 83_000 + 6_000]
    # In the forward a product and the layer's; in the backward two and five.
    assert seen.counts.tolist() == [2 + 2 + 5, 1 + 5]
    assert seen.phase_counts[BACKWARD] == sum(
        runs for key, (runs, _) in seen.kernels.items() if key.phase == BACKWARD
    )
    assert all(parameter._post_accumulate_grad_hooks is None for parameter in model.parameters())
