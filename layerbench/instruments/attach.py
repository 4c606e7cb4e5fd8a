"""Put other ``forward`` functions on module instances for a while, and take them off again.

Why not forward hooks: a module with a hook leaves PyTorch's short call path, and some modules
(`torch.nn.TransformerEncoderLayer`) give up a fused kernel when they see one
(docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]

_MISSING = object()


@contextmanager
def forwards_replaced(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Give each module instance another ``forward``; on exit each has what it had before.

    The instance's ``__dict__`` is written directly: a class that overrides ``__setattr__``
    must not notice, and an earlier instance attribute ``forward`` comes back.
    """
    before: list[tuple[nn.Module, object]] = []
    try:
        for module, forward in forwards.items():
            before.append((module, module.__dict__.get("forward", _MISSING)))
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, earlier in reversed(before):
            if earlier is _MISSING:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = earlier


@contextmanager
def mode_set(model: nn.Module, training: bool) -> Iterator[None]:
    """Put the whole model into one mode; on exit every module has its own mode again.

    A user's frozen BatchNorm in a model that trains is a module whose mode differs from the
    root's, so the modes are kept one by one. In training mode the buffers are kept too:
    BatchNorm moves its running statistics at every forward.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()] if training else []
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, earlier in buffers:
            buffer.data.copy_(earlier)
