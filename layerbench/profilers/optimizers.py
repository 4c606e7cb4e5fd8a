"""Optimizers by name, and one made for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from layerbench.errors import UsageError

LEARNING_RATE = 1e-3


_OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


OPTIMIZERS = tuple(_OPTIMIZERS)


def check_optimizer(optimizer: str | None) -> None:
    """Raise `UsageError` for an optimizer that is not one of `OPTIMIZERS`."""
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise UsageError(f"no optimizer {optimizer!r}: choose from {', '.join(OPTIMIZERS)}")


def make_optimizer(
    name: str, parameters: list[nn.Parameter], *, foreach: bool | None = None
) -> torch.optim.Optimizer:
    """An optimizer with its usual settings and a small learning rate.

    Args:
        name: one of `OPTIMIZERS`.
        parameters: that it changes.
        foreach: whether it works on all of them at once; ``None`` leaves it to PyTorch.
    """
    return _OPTIMIZERS[name](parameters, lr=LEARNING_RATE, foreach=foreach)
