"""Models built without memory: no operator fills what holds no values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerbench.zoo._meta import no_memory


class Ran(TorchDispatchMode):
    """Notes the operators that run on tensors without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(one, torch.Tensor) and one.is_meta for one in args):
            self.names.append(str(func.overloadpacket).partition(".")[2])
        return func(*args, **(kwargs or {}))


def test_initializing_weights_without_memory_runs_nothing() -> None:
    with Ran() as ran, no_memory():
        layer = nn.Conv2d(3, 4, 3)
        nn.init.kaiming_normal_(layer.weight)
        nn.init.trunc_normal_(layer.weight)
        nn.init.constant_(nn.BatchNorm2d(4).weight, 1)
    assert layer.weight.is_meta
    assert not [name for name in ran.names if name.endswith("_")]


def test_tensors_with_values_are_filled_as_ever() -> None:
    with no_memory():
        values = torch.tensor([1.0, 2.0]).mul_(2).add_(torch.tensor(1.0))
        meta = torch.zeros(2).add_(torch.ones(2))
    assert values.tolist() == [3, 5]
    assert meta.is_meta
