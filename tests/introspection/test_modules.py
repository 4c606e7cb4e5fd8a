"""Going through a model's modules and tensors gives what PyTorch's own methods give."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import pytest
import torch
from torch import nn

import layerbench
from layerbench.errors import LayerbenchError
from layerbench.instruments.attach import Attachment
from layerbench.introspection.modules import buffers, modules, named_modules, parameters


class Shared(nn.Module):
    """A layer under three names, a name without a module, tensors under two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.none = nn.Linear(2, 2), None
        self.again = self.first
        self.chain = nn.Sequential(nn.BatchNorm1d(2), self.first, nn.Sequential())
        self.weight = self.chain[0].weight
        self.register_buffer("mean", self.chain[0].running_mean)
        self.register_parameter("missing", None)


class Refuses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("never")


@pytest.mark.parametrize("make", [Shared, lambda: torch.jit.script(nn.Sequential(nn.ReLU()))])
def test_modules_and_tensors_come_as_from_pytorch(make: type[nn.Module]) -> None:
    model = make()
    assert list(map(id, modules(model))) == [id(module) for module in model.modules()]
    assert [name for name, _ in named_modules(model)] == [n for n, _ in model.named_modules()]
    assert list(map(id, parameters(model))) == [id(tensor) for tensor in model.parameters()]
    assert list(map(id, buffers(model))) == [id(tensor) for tensor in model.buffers()]


@pytest.mark.parametrize("call", [layerbench.structure, layerbench.memory, layerbench.profile])
def test_garbage_is_collected_again_after_a_call_that_raised(call: Callable[..., object]) -> None:
    with pytest.raises(LayerbenchError):
        call(Refuses(), torch.rand(1, 3))
    assert gc.isenabled()


class Copied(nn.Linear):
    """Its class has a way of its own to be copied."""

    def __deepcopy__(self, memo: object) -> str:
        return "a copy"


def test_each_class_is_copied_in_its_own_way_while_many_are_covered() -> None:
    plain, own, like_own = nn.Linear(2, 2), Copied(2, 2), nn.Linear(2, 2)
    like_own.__dict__["__deepcopy__"] = lambda memo: "an instance's"
    covered = [(module, "forward", lambda x: x) for module in (plain, own, like_own)]
    with Attachment(covered).attached():
        assert "forward" not in copy.deepcopy(plain).__dict__
        assert copy.deepcopy(own) == "a copy"
        assert copy.deepcopy(like_own) == "an instance's"
    assert "forward" not in own.__dict__
