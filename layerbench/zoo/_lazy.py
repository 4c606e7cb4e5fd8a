"""Models with lazy layers, which learn their input's size from the first forward."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, is_lazy

from layerbench.errors import ModelRunError, typed_line
from layerbench.introspection.modules import buffers, parameters
from layerbench.introspection.nested import map_tensors
from layerbench.zoo.family import Built


def made_ready(built: Built) -> Built:
    """A model whose layers all know their size: itself, or a copy that has run once.

    Raises:
        ModelRunError: it has lazy layers and cannot be copied, or that forward failed.
    """
    model = built.module
    if not any(is_lazy(tensor) for tensor in (*parameters(model), *buffers(model))):
        return built
    twin = _copied(built)
    args, kwargs = map_tensors((built.args, built.kwargs), lambda tensor: tensor.detach().clone())
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            twin(*args, **kwargs)
    except Exception as error:
        raise ModelRunError(
            f"{type(model).__name__}: the forward that initializes its lazy layers failed: "
            f"{typed_line(error)}"
        ) from error
    return Built(twin, built.args, built.kwargs)


# Its type hints lack the arguments.
_empty_buffer: Any = UninitializedBuffer


def _copied(built: Built) -> torch.nn.Module:
    # A lazy buffer refuses to be copied; a new one is as empty.
    memo: dict[int, Any] = {
        id(buffer): _empty_buffer(device=buffer.device, dtype=buffer.dtype)
        for buffer in buffers(built.module)
        if is_lazy(buffer)
    }
    try:
        return copy.deepcopy(built.module, memo)
    except Exception as error:
        raise ModelRunError(
            f"{type(built.module).__name__} has lazy layers and cannot be copied: run it once "
            f"before you pass it ({typed_line(error)})"
        ) from error
