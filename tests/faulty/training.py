"""Models that cannot be trained, or cannot be copied to be trained.

The functions of `BREAKS` are given by name: plain PyTorch raises for each in a training step, and
what is said should name the phase and the module. `CASES` train in plain PyTorch.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from tests.faulty import Case

Given = tuple[nn.Module, torch.Tensor]
# Of each function: the optimizer that it needs, and what the error says.
BREAKS = {
    "written_over": ("sgd", r"the backward failed in ReLU at relu: .*modified by an inplace"),
    "raises_backward": ("sgd", r"the backward failed in _Raising at raising: no way back"),
    "hook_raises": ("sgd", r"the backward failed in Linear .*: the hook says no"),
    "no_derivative": (
        "sgd",
        r"the backward failed in _NoWayBack at way: .*igamma.*not implemented",
    ),
    "sparse": ("adam", r"the optimizer failed: .*sparse gradients.*; take sgd or adagrad"),
}


class _WrittenOver(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.fc(x))
        x += 1
        return x


class _NoWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise ValueError("no way back")


class _Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _NoWay.apply(x)


class _NoWayBack(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.igamma(x.abs() + 1, torch.ones_like(x))


class _Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def hook(_: torch.Tensor) -> None:
            raise RuntimeError("the hook says no")

        h = self.fc(x)
        if h.requires_grad:
            h.register_hook(hook)
        return self.last(h)


def written_over() -> Given:
    """What the backward needs is written over."""
    return _WrittenOver(), torch.rand(2, 4)


def raises_backward() -> Given:
    """A function of the user's raises in its backward."""
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(4, 4))
    model.add_module("raising", _Raising())
    return model, torch.rand(2, 4)


def hook_raises() -> Given:
    """A hook on a tensor raises."""
    return _Hooked(), torch.rand(2, 4)


def no_derivative() -> Given:
    """An operator that has no backward."""
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(4, 4))
    model.add_module("way", _NoWayBack())
    return model, torch.rand(2, 4)


def sparse() -> Given:
    """Sparse gradients, which not every optimizer takes."""
    return nn.Sequential(nn.Embedding(10, 4, sparse=True)), torch.arange(6).reshape(2, 3)


class _Locked(nn.Module):
    """Holds a lock and its last activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lock, self.last = nn.Linear(4, 4), threading.Lock(), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.last = self.fc(x)
        return self.last


def _weight_norm() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its name: the parametrized one is newer
        layer = nn.utils.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(layer, nn.ReLU())
    model(torch.rand(2, 4))  # from here on its weight is the result of a computation
    return model, (torch.rand(2, 4),)


def _pruned() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model, (torch.rand(2, 4),)


def _locked() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = _Locked()
    model(torch.rand(2, 4))
    return model, (torch.rand(2, 4),)


def _scripted() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.ReLU())
    return model, (torch.rand(2, 4),)


CASES = [
    Case("weight norm by a hook", _weight_norm, 24, 2 * 2 * 4 * 4),
    Case("pruned", _pruned, 20, 2 * 2 * 4 * 4),
    Case("a lock and a kept activation", _locked, 20, 2 * 2 * 4 * 4),
    Case("scripted, trained", _scripted, 20),
]
