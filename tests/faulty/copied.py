"""Models that are copied or pickled in a way of their own, and what a loop may run them in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.faulty import Case

Inputs = tuple[nn.Module, tuple[Any, ...]]


class Pair(nn.Module):
    """Two layers, one of them inside another module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Sequential(nn.Linear(4, 4, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class LiveState(Pair):
    """Its state is its ``__dict__`` itself."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__


class WrappedState(Pair):
    """Its state lies in another one."""

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": dict(self.__dict__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["inner"])


class OwnDeepcopy(Pair):
    """Copies attribute by attribute."""

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnDeepcopy:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin


def _rebuilt(kind: type[nn.Module], attributes: dict[str, Any]) -> nn.Module:
    twin = kind.__new__(kind)
    twin.__dict__.update(attributes)
    return twin


class OwnReduce(Pair):
    """Says how it is made again, from its ``__dict__`` itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.__dict__)


class Recurrent(nn.Module):
    """An LSTM, whose state leaves something out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.cell(x[:, None])[0]
        return output


def _case(name: str, make: Callable[[], nn.Module], **facts: Any) -> Case:
    def build() -> Inputs:
        torch.manual_seed(0)
        return make(), (torch.rand(2, 4),)

    return Case(name, build, **facts)


def nested(depth: int) -> nn.Module:
    """One layer, as deep as Python's own stack takes it."""
    model: nn.Module = nn.Linear(4, 4)
    for _ in range(depth):
        model = nn.Sequential(model)
    return model


def padded_encoder() -> Inputs:
    """Its fused path makes nested tensors, which have no shape."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    return nn.TransformerEncoder(layer, 1).eval(), (torch.rand(2, 6, 16), None, padding)


PAIR = {"parameters": 32, "flops": 128}
CASES = [
    _case("a state that is its own dictionary", LiveState, **PAIR),
    _case("a state within a state", WrappedState, **PAIR),
    _case("a deepcopy of its own", OwnDeepcopy, **PAIR),
    _case("a reduce of its own", OwnReduce, **PAIR),
    _case("an LSTM in a module", Recurrent),
    _case("150 modules deep", lambda: nested(150), parameters=20, flops=64),
    Case("an encoder whose padding makes nested tensors", padded_encoder, parameters=2224),
]
