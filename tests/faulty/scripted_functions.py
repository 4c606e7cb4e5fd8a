"""Functions that TorchScript compiled, and specialises on the tensors that it has seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.faulty import Case


def _shifted(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) + 1


class _CallsScript(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.shifted = torch.jit.script(_shifted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shifted(self.fc(x))


def _build() -> tuple[nn.Module, tuple[Any, ...]]:
    return _CallsScript(), (torch.rand(2, 3),)


CASES = [Case("a scripted function inside a forward", _build, parameters=12, flops=36)]
