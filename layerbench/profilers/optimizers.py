"""Optimizers by name, and one made for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from layerbench.errors import UsageError
from layerbench.records.workload import Precision

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


def scaler_of(precision: Precision | None, kind: str) -> torch.amp.GradScaler:
    """What scales the loss of a step that computes in float16 by autocast; else it does nothing.

    It begins at 1: to scale costs as much at any scale, and no step is left out for gradients
    that are too large.
    """
    return torch.amp.GradScaler(kind, init_scale=1.0, enabled=precision == "amp")


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
