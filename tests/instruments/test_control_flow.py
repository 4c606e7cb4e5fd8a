"""Operators that run functions which close over layers: PyTorch compiles them to find those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.utils.checkpoint import checkpoint

import layerbench
from tests.support.fingerprint import fingerprint

WIDTH = 64
Steps = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Branches(nn.Module):
    """One of two parts, as `torch.cond` has it; its operands come in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.yes = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.no = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.cond(
            x.sum() > -1e9, lambda d: self.yes(d["x"]), lambda d: self.no(d["x"]), ({"x": x},)
        )


class Checkpointed(Branches):
    """What that comes to in training: the function runs once more in the backward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        part = self.yes if x.sum() > -1e9 else self.no
        return checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)


def test_training_through_branches_that_close_over_layers() -> None:
    x = torch.rand(8, WIDTH)
    models, inputs = (Branches(), Checkpointed()), (x,)
    before = fingerprint(models[0], inputs)
    found, expected = (
        layerbench.memory(model, x, training=True, optimizer="sgd") for model in models
    )
    assert found.peak.by_category == expected.peak.by_category
    assert found.peak.by_category["gradients"] > 0
    assert [note[:24] for note in found.notes] == ["cond ran as plain Python"]
    made = layerbench.estimate_memory(models[0], x, training=True)
    assert made.how == "replayed"  # which function runs is a matter of values
    assert made.by_category["parameters"] == found.parameters.block_bytes
    assert layerbench.structure(models[0], x).flops == 3 * 2 * 8 * WIDTH * WIDTH
    assert fingerprint(models[0], inputs) == before


class _Stepping(nn.Module):
    """One layer in steps; nothing that goes into the operator has a gradient."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.fc, self.steps = nn.Linear(4, 4), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(self.fc, x)


def _three_times(fc: nn.Module, x: torch.Tensor) -> torch.Tensor:
    start = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, fc(y)), (start, x))[1]


def _row_by_row(fc: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch_map(lambda row: fc(row) + 1, x)


def _summed_up(fc: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return scan(lambda sum, row: (sum + fc(row), sum * 2), torch.zeros(4, device=x.device), x)[1]


@pytest.mark.parametrize("steps", [_three_times, _row_by_row, _summed_up])
def test_steps_that_close_over_a_layer_train(steps: Steps) -> None:
    model, x = _Stepping(steps), torch.rand(3, 4)
    report = layerbench.memory(model, x, training=True, optimizer="adam")
    assert report.peak.by_category["optimizer state"] >= 2 * 80
    made = layerbench.estimate_memory(model, x, training=True, optimizer="adam")
    assert made.by_category["optimizer state"] == 4 * 512  # two for weight and bias each
    assert all("not counted" in found.notes[0] for found in (report, made))
