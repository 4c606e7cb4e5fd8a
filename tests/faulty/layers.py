"""Layers of libraries that keep something: recurrent, parametrized, pruned, scripted, frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from tests.faulty import Case
from tests.faulty.keeps_state import Base, Inputs, case

CASES: list[Case] = []


@case("recurrent weights in a list", lambda: torch.rand(3, 2, 4), among=CASES)
class _Recurrent(Base):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0])


def _layer_case(name: str, make: Any, *, trains: bool = True) -> None:
    def build() -> Inputs:
        torch.manual_seed(0)
        return nn.Sequential(make(nn.Linear(4, 4)), nn.ReLU()), (torch.rand(2, 4),)

    CASES.append(Case(name, build, trains=trains))


_layer_case("spectral norm by hook", spectral_norm)
_layer_case("weight norm by hook", weight_norm)
_layer_case("a pruned layer", lambda layer: prune.l1_unstructured(layer, "weight", 0.5))


class _Frozen(nn.Sequential):
    """A body whose normalization was frozen by its owner."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self[1].eval()


CASES.append(Case("frozen normalization", lambda: (_Frozen(), (torch.rand(2, 4),))))


class _Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.calls += 1
        return x + self.calls


@case("a scripted counter", among=CASES)
class _Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.jit.script(_Counts())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.inner(x))


@case("raises in its second and each third forward", trains=False, among=CASES)
class _Raises(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.fc.weight.data.mul_(0.5)
        if self.calls % 3 == 2:
            raise ValueError("the second")
        return self.fc(x)
