"""All that a model or its inputs hold, as plain values that can be compared.

Written apart from what puts a model back, so that the two do not share a mistake.
"""

from __future__ import annotations

import copy
import ctypes
import io
import itertools
import pickle
import random
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerbench.introspection.tensors import shape_of

ATOMS = (str, int, float, complex, bool, bytes, type(None), torch.dtype, torch.device, torch.Size)


def fingerprint(*roots: Any) -> dict[str, Any]:
    """What is reachable from the roots, by the way that leads to it.

    Identities count: the same objects must be there again. They have to be alive in between.
    """
    return dict(_walk(list(roots)))


def _walk(roots: list[Any]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    waiting = [(f"[{index}]", root) for index, root in enumerate(roots)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, ATOMS):
            yield path, repr(value)
            continue
        yield path, (type(value), id(value))
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield from ((f"{path}:{name}", what) for name, what in _own(value))
        waiting += [(f"{path}{name}", inner) for name, inner in _inside(value)]


def _own(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        with torch._C.DisableTorchFunctionSubclass():
            yield "requires_grad", value.requires_grad
            yield "leaf", value.is_leaf
            shape = "none" if is_lazy(value) else shape_of(value)
            yield "place", (value.device, value.dtype, shape, value.layout)
            yield "version", value._version
            yield "bits", _bits(value)
            if value.is_leaf:
                grad = value.grad
                yield "grad", None if grad is None else (id(grad), _bits(grad))
    elif isinstance(value, dict):
        yield "keys", [key if isinstance(key, ATOMS) else id(key) for key in value]
    elif isinstance(value, (list, tuple, deque)):
        yield "length", len(value)
    elif isinstance(value, (set, frozenset)):
        yield "members", {item if isinstance(item, ATOMS) else id(item) for item in value}
    elif isinstance(value, np.ndarray):
        yield "bits", value.tobytes()
    elif isinstance(value, bytearray):
        yield "bits", bytes(value)
    elif isinstance(value, random.Random):
        yield "state", value.getstate()
    elif isinstance(value, np.random.Generator):
        yield "state", repr(value.bit_generator.state)
    elif isinstance(value, torch.Generator):
        yield "state", value.get_state().numpy().tobytes()
    elif type(value).__module__ in ("itertools", "builtins") and hasattr(value, "__next__"):
        # From Python 3.14 on it has no other way to tell.
        counts = isinstance(value, itertools.count)
        yield "next", repr(value if counts else value.__reduce__())


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.jit.ScriptModule):
        yield from ((f".{name}", one) for name, one in value.named_parameters())
        yield from ((f".{name}", one) for name, one in value.named_buffers())
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{key!r}]" if isinstance(key, ATOMS) else "[?]", item
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, nn.Module) and type(value).__module__.startswith("tests."):
        yield from ((f"~class.{name}", what) for name, what in vars(type(value)).items())
    elif isinstance(value, torch.Tensor):
        yield "~hooks", value._backward_hooks
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        yield from ((f"~cell{index}", cell.cell_contents) for index, cell in enumerate(cells))
        yield "~defaults", value.__defaults__
    elif not isinstance(value, type):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(value, "__dict__", None)
    if isinstance(inner, dict):
        yield ".", inner
    for kind in type(value).__mro__:
        for name in vars(kind).get("__slots__", ()):
            if name != "__dict__" and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _bits(tensor: torch.Tensor) -> Any:
    if tensor.is_meta or is_lazy(tensor):
        return "none"
    try:
        with torch.no_grad():
            whole = tensor.detach()
            if whole.layout is not torch.strided or whole.is_quantized or whole.is_nested:
                buffer = io.BytesIO()
                torch.save(whole, buffer)
                return buffer.getvalue()
            own = whole.clone(memory_format=torch.contiguous_format)
            return ctypes.string_at(own.data_ptr(), own.nbytes)  # numpy would mark the storage
    except Exception as error:
        return repr(error)


def draws() -> tuple[Any, ...]:
    """The state of the process's generators."""
    _, keys, *rest = np.random.get_state()
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), keys.tobytes(), rest


def saving(model: nn.Module) -> tuple[str, ...]:
    """How pickle and deepcopy go: the names of what they raise."""
    outcomes = []
    for way in (pickle.dumps, copy.deepcopy):
        try:
            way(model)
        except Exception as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("done")
    return tuple(outcomes)
