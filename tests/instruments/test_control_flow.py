"""Operators that run functions which close over layers: PyTorch compiles them to find those."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.while_loop import while_loop

import layerbench
from layerbench.instruments.compiled import compilation_off
from tests.faulty import TORCH
from tests.support.fingerprint import fingerprint

# Where this one is not, no gradient goes through any of these operators.
scan = pytest.importorskip("torch._higher_order_ops.scan").scan

Function = Callable[..., torch.Tensor]
WIDTH = 16


def parts() -> tuple[nn.Module, nn.Module]:
    """What the functions below close over."""
    deep = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    return deep, nn.Linear(WIDTH, WIDTH)


def one_of_two(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """One of two parts; the operands come in a dictionary."""
    x = flat(x)
    return torch.cond(x.sum() > -1e9, lambda d: deep(d["x"]), lambda d: flat(d["x"]), ({"x": x},))


def step_by_step(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """Steps until a counter says that they are enough."""
    start = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda i, _: i < 4, lambda i, y: (i + 1, y + deep(y)), (start, flat(x)))[1]


def slice_by_slice(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """Slices of two tensors, a third that all share, and two outputs."""
    out = torch_map(
        lambda each, scale: {"a": deep(each["x"]) * scale, "b": (each["y"] * each["x"]).relu()},
        {"x": x, "y": flat(x)},
        x[0].mean(),
    )
    return out["a"] + out["b"]


def carried_on(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """Two tensors are carried on, two more come out of each step."""

    def step(
        carry: dict[str, torch.Tensor], each: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        h = deep(carry["h"] + each)
        k = torch.sigmoid(flat(each)) * carry["k"]
        return {"h": h, "k": k}, (h * 2, k + each)

    size, where = x.shape[1:], x.device
    start = {"h": torch.zeros(size, device=where), "k": torch.ones(size, device=where)}
    last, (first, second) = scan(step, start, x)
    return first + second + last["h"]


def carried_on_by_one_of_two(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """An operator in a function of another."""

    def step(carry: torch.Tensor, each: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        operands = (carry, each)
        yes, no = lambda a, b: deep(a + b), lambda a, b: flat(a) - b
        h = torch.cond(carry.sum() > 0, yes, no, operands)
        return h, h * 2

    return scan(step, torch.ones(x.shape[1:], device=x.device), x)[1]


takes_gradients = pytest.mark.skipif(
    TORCH < (2, 11), reason="operators that run functions do not train alike in torch 2.8"
)


class Running(nn.Module):
    """Runs a function on what it is given and its parts."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.parts)


# The peak of tensors' bytes in the second step of plain PyTorch 2.14, by `torch.profiler` with
# `profile_memory`; and of the model and its input, which were there before.
PEAKS = [
    (step_by_step, (8, WIDTH), 18_648),
    (slice_by_slice, (6, 8, WIDTH), 58_240),
    (one_of_two, (8, WIDTH), 9_673),
    (carried_on_by_one_of_two, (6, 8, WIDTH), 46_358),
]


@takes_gradients
@pytest.mark.parametrize(("function", "shape", "peak"), PEAKS)
def test_training_takes_what_it_takes_in_plain_pytorch(
    function: Function, shape: Sequence[int], peak: int
) -> None:
    model, inputs = Running(function), (torch.rand(*shape),)
    before = fingerprint(model, inputs)
    report = layerbench.memory(model, *inputs, training=True, optimizer="sgd")
    assert report.peak.bytes == pytest.approx(peak, rel=0.01)
    assert not report.notes
    assert fingerprint(model, inputs) == before


@takes_gradients
@pytest.mark.parametrize(("function", "shape", "peak"), PEAKS[:2])
def test_what_training_takes_is_estimated(
    function: Function, shape: Sequence[int], peak: int
) -> None:
    model, x = Running(function), torch.rand(*shape)
    made = layerbench.estimate_memory(model, x, training=True, optimizer="sgd")
    assert made.how == "fake"
    # On a GPU, each tensor takes a multiple of 512 bytes.
    assert peak < made.peak_interval.low < 1.6 * peak


def plainly(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """What `carried_on` comes to."""
    h, k = torch.zeros(x.shape[1:]), torch.ones(x.shape[1:])
    outputs = []
    for each in x:
        h, k = deep(h + each), torch.sigmoid(flat(each)) * k
        outputs.append(h * 2 + k + each)
    return torch.stack(outputs) + h


@takes_gradients
def test_gradients_reach_what_a_function_closes_over() -> None:
    model, x = Running(carried_on), torch.rand(6, 8, WIDTH)
    with compilation_off() as as_python:
        model(x).square().mean().backward()
    assert not as_python
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    plainly(x, *model.parts).square().mean().backward()
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6)


@takes_gradients
def test_each_step_counts() -> None:
    model, x = Running(carried_on), torch.rand(6, 8, WIDTH)
    rows = {row.path: row for row in layerbench.structure(model, x).rows}
    assert rows["parts.0.0"].calls == 6
    assert rows["parts.0.0"].flops == 6 * 2 * 8 * WIDTH * WIDTH
    report = layerbench.memory(model, x, training=True, optimizer="sgd")
    assert {row.path: row.calls for row in report.rows}["parts.0.0"] == 6
    assert report.peak.bytes == pytest.approx(102_664, rel=0.01)


def by_value(x: torch.Tensor, deep: nn.Module, flat: nn.Module) -> torch.Tensor:
    """A function that PyTorch could not compile."""
    return torch_map(lambda each: deep(each) if each.sum() > 0 else flat(each), x)


@takes_gradients
def test_a_function_that_looks_at_values_runs_as_python() -> None:
    report = layerbench.memory(Running(by_value), torch.rand(2, 3, WIDTH), training=True)
    assert [note[:23] for note in report.notes] == ["map ran as plain Python"]
    assert report.peak.by_category["gradients"] > 0
