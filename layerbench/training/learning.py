"""How weights learn: their optimizer, the number format of the forward, the scale of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from layerbench.environment.devices import Device
from layerbench.errors import ModelRunError
from layerbench.records.recipes import TrainingPrecision
from layerbench.records.workload import FORMATS


def in_format(precision: TrainingPrecision) -> str:
    """For a message of what cannot be computed: the format of a model that was converted."""
    return "" if FORMATS[precision] == "float32" else f" in {FORMATS[precision]}"


class Learner:
    """The weights of a model that learn.

    Args:
        name: of the model, for messages.
        model: on the device, in the format that its weights learn in.
        device: where.
        precision: what is computed in; float16 by autocast has its loss scaled.
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
        precision: TrainingPrecision,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ModelRunError(f"{name}: no parameter requires a gradient")
        self.optimizer = make(parameters)
        self.scaler = torch.amp.GradScaler(device.torch_device.type, enabled=precision == "amp")

    def backward(self, loss: torch.Tensor) -> None:
        """Go backward from the loss."""
        torch.autograd.backward(self.scaler.scale(loss))

    def update(self) -> None:
        """Take a step, and clear the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def load(self, optimizer: Mapping[str, Any], scaler: Mapping[str, Any]) -> None:
        """Go on from the states of another run's optimizer and scaler.

        PyTorch takes nearly any values, and would fail at the next step. What was said of the
        optimizer stays as it was when it was made.

        Raises:
            ValueError: values of another kind or shape than a step would leave.
            Exception: whatever else PyTorch raises at states that it cannot take.
        """
        groups = self.optimizer.param_groups
        made = [{name: group[name] for name in group if name != "params"} for group in groups]
        for group, saved in zip(groups, optimizer["param_groups"], strict=True):
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                _check_moments(parameter, optimizer["state"].get(number, {}))
        self.optimizer.load_state_dict(dict(optimizer))
        for group, before in zip(self.optimizer.param_groups, made, strict=True):
            group.update(before)
        _check_scale(self.scaler.state_dict(), scaler)
        self.scaler.load_state_dict(dict(scaler))


def _check_moments(parameter: nn.Parameter, state: Mapping[str, Any]) -> None:
    """Refuse what AdamW does not keep of a parameter: a step, and two tensors of its shape."""
    if state and state.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError(f"the optimizer's values are {', '.join(map(str, state))}")
    for name, value in state.items():
        shape = () if name == "step" else parameter.shape
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"the optimizer's {name} is no tensor")
        if value.shape != torch.Size(shape) or not value.is_floating_point():
            raise ValueError(f"the optimizer's {name} is not of its parameter's shape and kind")


def _check_scale(expected: Mapping[str, Any], scaler: Mapping[str, Any]) -> None:
    """Refuse a scale of the loss that is no number; without scaling there is none."""
    for name in expected:
        if isinstance(scaler[name], bool) or not isinstance(scaler[name], int | float):
            raise ValueError(f"the scaler's {name} is no number")
