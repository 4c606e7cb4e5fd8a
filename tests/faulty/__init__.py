"""Models that profilers have failed on, rebuilt small, with what is right for each.

A module of this folder holds one kind of difficulty in its ``CASES``. The contract test runs every
case through every call and looks whether the model is as it was; the right values are compared
by the tests of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch
from torch import nn

TORCH = tuple(int(number) for number in torch.__version__.split(".")[:2])


@dataclass(frozen=True)
class Case:
    """One model with its inputs, and what is right for it.

    Attributes:
        name: says what is difficult, such as ``weight norm on a convolution``.
        build: a fresh model in the state that a user would hand over, and its positional arguments.
        parameters: elements of its parameters, ``None`` where nothing is claimed.
        flops: of one forward, a multiply-add as 2, ``None`` where nothing is claimed.
        trains: whether plain PyTorch can run a forward and a backward through it.
        since: the first PyTorch seen to do what this needs, and what that is.
    """

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    parameters: int | None = None
    flops: int | None = None
    trains: bool = True
    since: tuple[tuple[int, int], str] | None = None

    @property
    def is_there(self) -> bool:
        """Whether this PyTorch can do what it needs."""
        return self.since is None or self.since[0] <= TORCH


def cases() -> list[Case]:
    """The cases of all modules of this folder."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return [case for module in modules for case in module.CASES if case.is_there]
