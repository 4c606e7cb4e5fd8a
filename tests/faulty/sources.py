"""Files of models that fail, print or leave, as their authors would have written them.

What is here is only given by name: ``CASES`` is empty.
"""

from __future__ import annotations

import ctypes
import os
import sys

import torch
from torch import nn

CASES: list[object] = []


class _Talks(nn.Module):
    """Prints by every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        print("by the constructor")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("by Python", flush=True)
        os.write(1, b"by its number\n")
        ctypes.CDLL(None).puts(b"by a C library")
        sys.__stdout__.write("by the first stream\n")
        return self.fc(x)


class _Mismatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) @ torch.ones(3)  # the line that is at fault


class _Leaves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.exit(0)  # the line that leaves


def talks() -> tuple[nn.Module, torch.Tensor]:
    """Prints while it is built and while it runs."""
    return _Talks(), torch.rand(1, 2)


def mismatch() -> tuple[nn.Module, torch.Tensor]:
    """Raises in its forward."""
    return _Mismatch(), torch.rand(1, 2)


def leaves() -> tuple[nn.Module, torch.Tensor]:
    """Calls ``sys.exit`` in its forward."""
    return _Leaves(), torch.rand(1, 2)


def raises() -> nn.Module:
    """Raises while it is built."""
    raise ValueError("no such width")  # the line that raises
