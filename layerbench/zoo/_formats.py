"""The number formats of a model and its inputs: reading and converting them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn

from layerbench.introspection.modules import apply_to_tensors, buffers, parameters, set_mode
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.introspection.tensors import elements_of
from layerbench.records.workload import JOINED, Workload, named_format
from layerbench.zoo.family import Built
from layerbench.zoo.inputs import OWN

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def number_formats(module: nn.Module, values: Any) -> str:  # noqa: ANN401 - any nesting
    """The floating and complex formats of a model's tensors and its inputs, joined.

    The most frequent format of its parameters' elements comes first, inputs come last. ``float32``
    if no tensor has such a format.
    """
    held = (parameters(module), buffers(module), tensors_in(values))
    names = chain.from_iterable(map(_by_size, held))
    return JOINED.join(dict.fromkeys(names)) or "float32"


def input_format(module: nn.Module) -> torch.dtype:
    """The number format of a random input: that of the model's first floating parameter."""
    tensors = chain(parameters(module), buffers(module))
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def converted(built: Built, workload: Workload, device: str = "cpu") -> Built:
    """The model and its inputs, on a device in the workload's formats and mode.

    The module is changed in place, and only if there is something to change.
    """
    module = built.module
    _convert_module(module, workload, device)
    args, kwargs = built.args, built.kwargs
    random = workload.input != OWN and workload.inputs is None
    if random and named_format(workload.dtype) is None:
        # A random input takes the model's format.
        wanted = input_format(module)
        args = tuple(t.to(wanted) if isinstance(t, torch.Tensor) else t for t in args)
    args, kwargs = convert_value((args, kwargs), workload.dtype, workload.memory_format, device)
    return Built(module, args, kwargs)


def convert_value(
    value: Any,  # noqa: ANN401 - any nesting
    dtype: str,
    memory_format: str,
    device: str = "cpu",
) -> Any:  # noqa: ANN401 - any nesting
    """The tensors in ``value`` (nested lists, tuples, dicts) on the device in dtype and format.

    Integer tensors keep their type, and tensors of other than 4 or 5 dimensions their strides.
    Other values are passed on.
    """
    return map_tensors(value, lambda tensor: _changed(tensor, dtype, memory_format, device))


def _convert_module(module: nn.Module, workload: Workload, device: str) -> None:
    # The results of ``to`` and ``train`` are ignored: a class may have its own.
    name = named_format(workload.dtype)
    settings = (workload.dtype, workload.memory_format, device)
    tensors = [*parameters(module), *buffers(module)]
    differs = any(_differs(tensor, *settings) for tensor in tensors)
    own_to = type(module).to is not nn.Module.to
    if name is not None and device == "cpu" and own_to and (differs or not tensors):
        module.to(getattr(torch, name))  # may convert more than parameters
    if differs:
        apply_to_tensors(module, lambda tensor: _changed(tensor, *settings))
    training = workload.mode == "train"
    own = type(module).train is not nn.Module.train and "train" not in module.__dict__
    set_mode(module, training, anew=own)


def _differs(tensor: torch.Tensor, dtype: str, memory_format: str, device: str) -> bool:
    return (
        tensor.device.type != device
        or tensor.dtype != _wanted(tensor, dtype)
        or (memory_format == "channels_last" and tensor.dim() in _CHANNELS_LAST)
    )


def _changed(tensor: torch.Tensor, dtype: str, memory_format: str, device: str) -> torch.Tensor:
    if not _differs(tensor, dtype, memory_format, device):
        return tensor
    tensor = tensor.to(device).to(_wanted(tensor, dtype))
    if memory_format != "channels_last" or tensor.dim() not in _CHANNELS_LAST:
        return tensor
    return tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.dim()])


def _wanted(tensor: torch.Tensor, dtype: str) -> torch.dtype:
    """A tensor's format in a workload's; integers, and formats that a model keeps, stay."""
    name = named_format(dtype)
    if name is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.dtype
    wanted: torch.dtype = getattr(torch, name)
    return wanted.to_complex() if tensor.is_complex() else wanted


def _by_size(tensors: Iterable[torch.Tensor]) -> list[str]:
    """The tensors' formats, the one with the most elements first."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            sizes[str(tensor.dtype).removeprefix("torch.")] += elements_of(tensor)
    return [name for name, _ in sizes.most_common()]
