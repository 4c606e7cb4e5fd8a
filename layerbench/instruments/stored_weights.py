"""Weights that are no plain numbers of their format: quantized, sparse, packed by a library.

A tensor of a subclass (torchao's) says the shape and the format that it stands for, not what it
stores. What a quantized layer of `torch.ao.nn` packs is no parameter at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from layerbench import units
from layerbench.introspection.modules import (
    children,
    is_floating,
    join,
    named_modules,
    own_parameters,
    parameters,
)
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import (
    bytes_of,
    elements_of,
    holders_of,
    is_plain,
    storage_of,
)


def packed_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights that a library has packed into an object of its own, as a quantized layer's.

    They are neither parameters nor buffers. Given as they come out of the object: copies.
    """
    seen: set[int] = set()
    for path, module in named_modules(model):
        for name, packed in _packed_in(module):
            if id(packed) not in seen:
                seen.add(id(packed))
                yield from _unpacked(join(path, name), packed)


def stored_bytes(module: nn.Module) -> int | None:
    """Bytes of the weights that a module holds itself; ``None`` where all are plain numbers."""
    own, packed = own_parameters(module), packed_of(module)
    if not packed and all(map(is_plain, own)):
        return None
    return sum(map(bytes_of, (*own, *packed)))


def packed_of(module: nn.Module) -> list[torch.Tensor]:
    """What is packed for a module: by itself, or by a submodule that is made to hold it.

    Such a submodule has nothing of its own.
    """
    if is_holder(module):
        return []
    return [weight for holder in (module, *holders(module)) for weight in packed_in(holder)]


def packed_in(module: nn.Module) -> list[torch.Tensor]:
    """Weights in the packed objects among a module's attributes, as they come out: copies."""
    return [tensor for name, packed in _packed_in(module) for _, tensor in _unpacked(name, packed)]


def is_holder(module: nn.Module) -> bool:
    """Whether a module only holds what is packed for the one above it."""
    kind = type(module)
    return "Packed" in kind.__name__ and kind.__module__.startswith("torch.ao.")


def holders(module: nn.Module) -> Iterator[nn.Module]:
    """The submodules that hold what is packed for a module."""
    for child in children(module):
        if is_holder(child):
            yield child
        elif type(child) is nn.ModuleList:  # a recurrent layer has one for each direction
            yield from filter(is_holder, children(child))


def kind_of(tensor: torch.Tensor) -> str:
    """How a tensor holds its numbers; empty for a plain one, and one whose format says it."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return type(tensor).__name__ if is_traceable_wrapper_subclass(tensor) else ""


def notes_on_stored_weights(model: nn.Module) -> tuple[str, ...]:
    """What is packed by a library, and what is held otherwise than its number format says."""
    notes = []
    packed = [weight for _, weight in packed_weights(model)]
    if packed:
        notes.append(
            f"{_size(packed)}, scales and padding left out, are packed by a library: PyTorch's own "
            "count of parameters leaves them out"
        )
    kinds: dict[str, list[torch.Tensor]] = {}
    for tensor in parameters(model):
        if kind := kind_of(tensor):
            kinds.setdefault(kind, []).append(tensor)
    for kind, tensors in kinds.items():
        formats = dict.fromkeys(
            str(part.dtype).removeprefix("torch.") for one in tensors for part in holders_of(one)
        )
        notes.append(f"{_size(tensors)} of parameters are held as {kind} ({', '.join(formats)})")
    return tuple(notes)


def _size(tensors: Iterable[torch.Tensor]) -> str:
    every = list(tensors)
    elements, size = sum(map(elements_of, every)), sum(map(bytes_of, every))
    return f"{units.count(elements)} elements in {units.bytes_(size)}"


def _packed_in(module: nn.Module) -> Iterator[tuple[str, torch.ScriptObject]]:
    if isinstance(module, torch.jit.ScriptModule):
        return
    for name, value in vars(module).items():
        if issubclass(type(value), torch.ScriptObject):
            yield name, value


def _unpacked(name: str, packed: torch.ScriptObject) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        held = list(_inside(packed))
    except Exception:
        return
    # A convolution's stride, padding and so on stand beside its weight, as whole numbers. A
    # recurrent cell has its biases once more beside those of its two products.
    inside: dict[object, torch.Tensor] = {}
    for tensor in held:
        if tensor.is_quantized or is_floating(tensor):
            storage = storage_of(tensor)
            inside.setdefault(id(tensor) if storage is None else storage._cdata, tensor)
    for number, tensor in enumerate(inside.values()):
        yield (name if len(inside) == 1 else f"{name}.{number}"), tensor


def _inside(packed: torch.ScriptObject) -> Iterator[torch.Tensor]:
    """Its tensors, and those of packed objects in it."""
    with_state: Any = packed  # an object has such a method from Python 3.11 on
    state: Any = with_state.__getstate__()
    tensors = [tensor.detach() for tensor in tensors_in(state)]  # nobody can train it there
    if str(state[-1]).endswith(".LinearPackedParamsBase") and not tensors[0].is_quantized:
        tensors[0] = tensors[0].half()  # a weight that comes out as float32 is held as float16
    yield from tensors
    for inner in _script_objects(state):
        yield from _inside(inner)


def _script_objects(state: object) -> Iterator[torch.ScriptObject]:
    if isinstance(state, torch.ScriptObject):
        yield state
    elif isinstance(state, (tuple, list)):
        for part in state:
            yield from _script_objects(part)
