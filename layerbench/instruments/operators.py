"""Operators by name, and those that run functions: `torch.cond`, loops, flex attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import HigherOrderOperator

_KEYS = (torch._C.DispatchKey.CompositeExplicitAutograd, torch._C.DispatchKey.CPU)


def functions_run(func: HigherOrderOperator) -> Callable[..., Any] | None:
    """What runs a higher-order operator's functions one operator after the other, if known.

    Under a dispatch mode that is entered again, their operators are seen.
    """
    return next((func.py_kernels[key] for key in _KEYS if key in func.py_kernels), None)


def operator_name(func: Any) -> str:  # noqa: ANN401 - an OpOverload, or one that runs functions
    """``aten.convolution``: the operator without its overload."""
    if isinstance(func, HigherOrderOperator):
        return str(func._name)
    return str(func.overloadpacket._qualified_op_name).replace("::", ".")
