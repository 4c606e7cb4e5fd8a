"""Operators by name, and those that run functions: `torch.cond`, loops, checkpoints, attention."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._pytree import tree_map

# Its mask and score functions run mapped over indices, between the products.
_ONE_PIECE = ("flex_attention", "flex_attention_backward")
_KEY = torch._C.DispatchKey.CompositeExplicitAutograd


def run_seen(
    func: HigherOrderOperator,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    mode: AbstractContextManager[object],
) -> Any:  # noqa: ANN401 - whatever the operator returns
    """Run a higher-order operator so that a mode sees the operators of the functions it runs."""
    if operator_name(func) in _ONE_PIECE and _KEY in func.py_kernels:
        with mode:
            return func.py_kernels[_KEY](*args, **kwargs)
    args, kwargs = tree_map(lambda value: _seen_by(mode, value), (args, kwargs))
    return func(*args, **kwargs)


def _seen_by(mode: AbstractContextManager[object], value: Any) -> Any:  # noqa: ANN401 - any argument
    """A function that runs under the mode; anything else as it is."""
    if isinstance(value, (torch.Tensor, type)) or not callable(value):
        return value

    @wraps(value)
    def seen(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any function
        with mode:
            return value(*args, **kwargs)

    return seen


def operator_name(func: Any) -> str:  # noqa: ANN401 - an OpOverload, or one that runs functions
    """``aten.convolution``: the operator without its overload."""
    if isinstance(func, HigherOrderOperator):
        return str(func._name)
    return str(func.overloadpacket._qualified_op_name).replace("::", ".")
