"""Optimizers by name, and one made for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import nn

from layerbench.errors import UsageError
from layerbench.records.recipes import EPS_FLOAT16
from layerbench.records.workload import Precision

LEARNING_RATE = 1e-3
# PyTorch's.
ADAM_EPS = 1e-8


_OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


OPTIMIZERS = tuple(_OPTIMIZERS)
_DIVIDING = ("adam", "adamw", "rmsprop", "adagrad")


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
    settings = {"eps": EPS_FLOAT16} if name in _DIVIDING and _any_float16(parameters) else {}
    return _OPTIMIZERS[name](parameters, lr=LEARNING_RATE, foreach=foreach, **settings)


def adam_eps(parameters: Iterable[torch.Tensor]) -> float:
    """``eps`` of Adam and AdamW: PyTorch's own, but where float16 has no such number."""
    return EPS_FLOAT16 if _any_float16(parameters) else ADAM_EPS


def _any_float16(parameters: Iterable[torch.Tensor]) -> bool:
    return any(parameter.dtype == torch.float16 for parameter in parameters)


def not_finite(parameters: Iterable[torch.Tensor]) -> str:
    """What is to be said of weights that training made no numbers; empty where all are."""
    broken = sum(not bool(torch.isfinite(parameter.detach()).all()) for parameter in parameters)
    if not broken:
        return ""
    return (
        f"{broken} of the model's parameters were no longer finite after the steps: such a "
        "training stops, and learns nothing"
    )
