"""Weights that are no plain numbers of their format: quantized, sparse, packed by a library.

A tensor of a subclass (torchao's) says the shape and the format that it stands for, not what it
stores. What a quantized layer of `torch.ao.nn` packs is no parameter at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
from layerbench.introspection.tensors import bytes_of, elements_of, holders_of, is_plain


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
    """Bytes of the weights that a module holds itself; ``None`` where all are plain numbers.

    A packed object of its own counts, and one in a submodule that is made to hold it.
    """
    holders = [m for m in children(module) if type(m).__name__.endswith("PackedParams")]
    packed = [
        weight
        for holder in (module, *holders)
        for name, value in _packed_in(holder)
        for _, weight in _unpacked(name, value)
    ]
    own = own_parameters(module)
    if not packed and all(map(is_plain, own)):
        return None
    return sum(map(bytes_of, (*own, *packed)))


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
            f"{_size(packed)}, scales and padding left out, are packed by a library: "
            "memory counts them as parameters, structure does not, as PyTorch"
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
        held = list(tensors_in(packed.__getstate__()))
    except Exception:
        return
    # A convolution's stride, padding and so on stand beside its weight, as whole numbers.
    inside = [tensor for tensor in held if tensor.is_quantized or is_floating(tensor)]
    for number, tensor in enumerate(inside):
        yield (name if len(inside) == 1 else f"{name}.{number}"), tensor
