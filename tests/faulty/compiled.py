"""Models that are compiled before they are measured; what Dynamo makes is run as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.faulty import Case

Inputs = tuple[nn.Module, tuple[Any, ...]]
Backend = Any


class Counting:
    """A backend that compiles nothing and counts how often it is asked to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


class Block(nn.Module):
    """A layer and two functions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.layer(x)) + x


class Net(nn.Module):
    """Two blocks between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.body = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.body(self.stem(x)))
        return output


def wrapped(backend: Backend) -> nn.Module:
    return torch.compile(Net(), backend=backend)  # type: ignore[return-value]


def in_place(backend: Backend) -> nn.Module:
    model = Net()
    model.compile(backend=backend)
    return model


def its_forward(backend: Backend) -> nn.Module:
    model = Net()
    model.forward = torch.compile(model.forward, backend=backend)  # type: ignore[method-assign]
    return model


def by_its_class(backend: Backend) -> nn.Module:
    class Decorated(Net):
        @torch.compile(backend=backend, fullgraph=True)
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Net.forward(self, x)

    return Decorated()


def a_part_wrapped(backend: Backend) -> nn.Module:
    model = Net()
    model.body[0] = torch.compile(model.body[0], backend=backend, fullgraph=True)
    return model


def a_part_in_place(backend: Backend) -> nn.Module:
    model = Net()
    model.body[0].compile(backend=backend, fullgraph=True)
    return model


def the_forward_of_a_part(backend: Backend) -> nn.Module:
    model = Net()
    part = model.body[0]
    part.forward = torch.compile(part.forward, backend=backend, fullgraph=True)  # type: ignore[method-assign]
    return model


def a_function_given_a_part(backend: Backend) -> nn.Module:
    @torch.compile(backend=backend, fullgraph=True)
    def run(part: nn.Module, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = part(x)
        return output

    class Running(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.head(self.body[1](run(self.body[0], self.stem(x))))
            return output

    return Running()


WHOLE = (wrapped, in_place, its_forward, by_its_class)
PARTLY = (a_part_wrapped, a_part_in_place, the_forward_of_a_part, a_function_given_a_part)
PARAMETERS, FLOPS = 70, 224


def _case(make: Callable[[Backend], nn.Module]) -> Case:
    def build() -> Inputs:
        torch.manual_seed(0)
        model, x = make("eager").eval(), torch.rand(2, 4)
        # Dynamo writes into what it compiles, the first time.
        with torch.no_grad():
            model(x)
        model(x)
        return model, (x,)

    name = f"compiled: {make.__name__.replace('_', ' ')}"
    return Case(name, build, parameters=PARAMETERS, flops=FLOPS)


# Compiling takes time: one of each.
CASES = [_case(wrapped), _case(a_part_in_place)]
