"""How weights learn: their optimizer, the number format of the forward, the scale of the loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from layerbench.environment.devices import Device
from layerbench.errors import ModelRunError
from layerbench.records.recipes import Precision


class Learner:
    """The weights of a model that learn.

    Args:
        name: of the model, for messages.
        model: on the device; its weights are float32.
        device: where.
        precision: of the forward; float16 has its loss scaled.
        make: the optimizer of the parameters that learn.

    Attributes:
        optimizer: of the parameters that learn.
        scaler: of the loss.

    Raises:
        ModelRunError: nothing in the model learns.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        device: Device,
        precision: Precision,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ModelRunError(f"{name}: no parameter requires a gradient")
        self.optimizer = make(parameters)
        self.scaler = torch.amp.GradScaler(device.torch_device.type, enabled=precision == "float16")

    def backward(self, loss: torch.Tensor) -> None:
        """Go backward from the loss."""
        torch.autograd.backward(self.scaler.scale(loss))

    def update(self) -> None:
        """Take a step, and clear the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def autocast(precision: Precision, device: Device) -> AbstractContextManager[object]:
    """What a forward of this precision runs in."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.torch_device.type, dtype=getattr(torch, precision))
