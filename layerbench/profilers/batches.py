"""A training step's batch as a loader hands it over: on the host, and copied for each step."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from layerbench.environment.devices import Device
from layerbench.introspection.nested import map_tensors
from layerbench.introspection.tensors import is_plain


def as_loaded(tensor: torch.Tensor, device: Device) -> torch.Tensor:
    """A copy on the host, where a loader puts it: for a GPU in memory that it reads by itself."""
    tensor = tensor.cpu()
    if device.kind != "cpu" and is_plain(tensor):
        with suppress(RuntimeError):  # some devices read no memory by themselves
            return tensor.pin_memory()
    return tensor


def copied(batch: Any, device: Device) -> Any:  # noqa: ANN401 - whatever the model takes
    """A batch's copy on the device.

    Where the memory is pinned the host does not wait; the batch has to stay as it is until then.
    """
    there = device.torch_device
    return map_tensors(batch, lambda tensor: tensor.to(there, copy=True, non_blocking=True))
