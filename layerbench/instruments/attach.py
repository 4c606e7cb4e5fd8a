"""Put other ``forward`` functions on module instances for a while, and take them off again.

Why not forward hooks: a module with a hook leaves PyTorch's short call path, and some modules
(`torch.nn.TransformerEncoderLayer`) give up a fused kernel when they see one
(docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from layerbench.modules import buffers, modules, set_mode, submodules_first

Forward = Callable[..., Any]
# A module, the name of one of its attributes, and what that is for a while.
Replacement = tuple[nn.Module, str, object]

_MISSING = object()


@contextmanager
def attributes_replaced(replacements: Iterable[Replacement]) -> Iterator[None]:
    """Give module instances other values of attributes; on exit each has its own again.

    The instance's ``__dict__`` is written directly: a class that overrides ``__setattr__``
    must not notice, and an earlier instance attribute comes back.
    """
    before: list[tuple[nn.Module, str, object]] = []
    try:
        for module, name, value in replacements:
            before.append((module, name, module.__dict__.get(name, _MISSING)))
            module.__dict__[name] = value
        yield
    finally:
        for module, name, earlier in reversed(before):
            if earlier is _MISSING:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = earlier


def forwards_replaced(forwards: Mapping[nn.Module, Forward]) -> AbstractContextManager[None]:
    """Give each module instance another ``forward`` for the duration of a ``with`` block."""
    return attributes_replaced((module, "forward", f) for module, f in forwards.items())


@contextmanager
def mode_set(model: nn.Module, training: bool) -> Iterator[None]:
    """Put the whole model into one mode; on exit every module has its own mode again.

    A user's frozen BatchNorm in a model that trains is a module whose mode differs from the
    root's, so the modes are kept one by one. In training mode the buffers are kept too:
    BatchNorm moves its running statistics at every forward.
    """
    # A frozen scripted module has no mode.
    modes: list[tuple[nn.Module, Any]] = [
        (module, getattr(module, "training", _MISSING)) for module in modules(model)
    ]
    kept = [(buffer, buffer.detach().clone()) for buffer in buffers(model)] if training else []
    try:
        set_mode(model, training)
        yield
    finally:
        for module, mode in modes:
            if mode is _MISSING:
                module.__dict__.pop("training", None)
            else:
                module.training = mode
        for buffer, earlier in kept:
            buffer.data.copy_(earlier)


@contextmanager
def tensors_replaced(
    model: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Let other tensors stand in for all parameters and buffers; on exit the model's are back.

    They are made in the order in which `torch.nn.Module.to` moves them, submodules first; a
    tensor that several modules share is replaced by one.

    Args:
        model: its modules' tables of tensors are written, not the tensors.
        make: given a parameter or buffer without its gradient, returns what takes its place.
    """
    stand_ins: dict[int, torch.Tensor] = {}
    before: list[tuple[dict[str, Any], str, torch.Tensor]] = []

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in stand_ins:
            made = make(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            stand_ins[id(tensor)] = made
        return stand_ins[id(tensor)]

    try:
        for module in submodules_first(model):
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name, tensor in list(table.items()):
                    if tensor is not None:
                        before.append((table, name, tensor))
                        table[name] = stand_in(tensor)
        yield
    finally:
        for table, name, tensor in before:
            table[name] = tensor
