"""The tensors that a model and its inputs hold before anything runs: their rows, and their sums.

Several tensors may share a storage: a row has the bytes of its own elements, and a sum counts what
is distinct.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerbench import units
from layerbench.instruments.compiled import original
from layerbench.instruments.stored_weights import (
    kind_of,
    notes_on_stored_weights,
    packed_weights,
)
from layerbench.introspection.modules import (
    is_floating,
    join,
    named_buffers,
    named_modules,
    named_parameters,
    own_attributes,
    parameters,
)
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import (
    bytes_of,
    bytes_of_part,
    holders_of,
    lengths_of,
    parts_of,
    shape_of,
    storage_of,
)
from layerbench.records.memory import TensorRow, Totals
from layerbench.zoo import Built

BLOCK = 512
"""CUDA's caching allocator hands out multiples of this many bytes."""

Role = Literal["parameter", "buffer", "input"]
PACKED = "packed by a library"
IN_ATTRIBUTE = "in an attribute, no buffer"


@dataclass(frozen=True)
class _Piece:
    """A tensor's place in a storage, from its first byte to its last.

    Attributes:
        bytes: of its elements.
        blocks: bytes that the storage takes on a GPU.
        numbers: whether elements of the tensor are there, and not what places or scales them.
    """

    storage: int
    begin: int
    end: int
    bytes: int
    blocks: int
    numbers: bool = True


@dataclass(frozen=True)
class HeldTensor:
    """A tensor's row, and the identity of the tensor and of its memory.

    It is kept, as what tells it from others is told by where it lies.
    """

    tensor: torch.Tensor
    row: TensorRow
    identity: tuple[object, ...]
    pieces: tuple[_Piece, ...]


def held_tensors(built: Built) -> list[HeldTensor]:
    """A row for each parameter and buffer by every name it has, and for each input."""
    model = original(built.module)
    held = [_held(*named, "parameter") for named in named_parameters(model, remove_duplicate=False)]
    held += [_held(*named, "parameter", PACKED) for named in packed_weights(model)]
    held += [_held(*named, "buffer") for named in named_buffers(model, remove_duplicate=False)]
    held += [_held(*named, "buffer", IN_ATTRIBUTE) for named in tensors_in_attributes(model)]
    inputs = list(tensors_in((built.args, built.kwargs)))
    names = ["input"] if len(inputs) == 1 else [f"input {n}" for n in range(1, len(inputs) + 1)]
    return held + [_held(*named, "input") for named in zip(names, inputs, strict=True)]


def tensors_in_attributes(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that modules hold in attributes of their own: a cache, a table of positions.

    They are neither parameters nor buffers, but take memory as these do. Each comes once; see
    `layerbench.introspection.modules.own_attributes` for where they are looked for.
    """
    tables = (named_parameters(model), named_buffers(model))
    seen = {id(tensor) for table in tables for _, tensor in table}
    for path, module in named_modules(model):
        for name, value in own_attributes(module):
            inside = [t for t in tensors_in(value) if id(t) not in seen and is_floating(t)]
            seen.update(map(id, inside))
            for number, tensor in enumerate(inside):
                label = name if isinstance(value, torch.Tensor) else f"{name}[{number}]"
                yield join(path, label), tensor


def _held(name: str, tensor: torch.Tensor, role: Role, note: str = "") -> HeldTensor:
    pieces = tuple(_pieces(tensor))
    row = TensorRow(
        name=name,
        role=role,
        shape=shape_of(tensor),
        dtype=str(tensor.dtype).removeprefix("torch."),
        elements=tensor.numel(),
        bytes=bytes_of(tensor),
        block_bytes=sum(piece.blocks for piece in pieces),
        note=note or kind_of(tensor),
    )
    identity = (*((piece.storage, piece.begin) for piece in pieces), row.shape, _strides(tensor))
    return HeldTensor(tensor, row, identity, pieces)


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout is torch.strided and not tensor.is_nested else ()


def _pieces(tensor: torch.Tensor) -> Iterator[_Piece]:
    for part in holders_of(tensor):
        yield replace(_piece(part), numbers=part.dtype == tensor.dtype)
    for lengths in lengths_of(tensor):
        yield replace(_piece(lengths), numbers=False, blocks=0)  # they lie on the host


def _piece(tensor: torch.Tensor) -> _Piece:
    storage, size = storage_of(tensor), bytes_of_part(tensor)
    if storage is None:
        return _Piece(id(tensor), 0, size, size, _blocks(size))
    if tensor.is_nested:
        return _Piece(storage._cdata, 0, size, size, _blocks(storage.nbytes()))
    item = tensor.element_size()
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    begin = int(tensor.storage_offset()) * item
    end = begin + (last + 1) * item if tensor.numel() else begin
    return _Piece(storage._cdata, begin, end, size, _blocks(storage.nbytes()))


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def totals(held: Iterable[HeldTensor], *roles: Role) -> Totals:
    """Sums over the tensors of some roles, what several share counted once."""
    distinct = {one.identity: one for one in held if one.row.role in roles}
    pieces = [piece for one in distinct.values() for piece in one.pieces]
    numbers = [piece for piece in pieces if piece.numbers]
    elements, own = sum(one.row.elements for one in distinct.values()), _own_bytes(numbers)
    return Totals(
        tensors=len(distinct),
        # Views of the same bytes have the same elements.
        elements=elements * _distinct_bytes(numbers) // own if own else elements,
        bytes=_distinct_bytes(pieces),
        block_bytes=sum({piece.storage: piece.blocks for piece in pieces}.values()),
    )


def _own_bytes(pieces: Iterable[_Piece]) -> int:
    return sum(piece.bytes for piece in pieces)


def _distinct_bytes(pieces: Sequence[_Piece]) -> int:
    """Bytes of pieces, those that several share once; a view may skip some of its stretch."""
    return min(_own_bytes(pieces), sum(end - begin for begin, end in _union(pieces)))


def _union(pieces: Iterable[_Piece]) -> Iterator[tuple[int, int]]:
    """The stretches of bytes that pieces cover; those of different storages stay apart."""
    storage, begin, end = None, 0, 0
    for piece in sorted(pieces, key=lambda piece: (piece.storage, piece.begin)):
        if piece.storage != storage or piece.begin > end:
            yield begin, end
            storage, begin, end = piece.storage, piece.begin, piece.end
        end = max(end, piece.end)
    yield begin, end


def notes_on_parameters(model: nn.Module) -> tuple[str, ...]:
    """Where the parameters of a structure, which are PyTorch's, are not those of memory."""
    notes = list(notes_on_stored_weights(model))
    sharing = [_piece(part) for part in _sharing_a_storage(model)]
    own, covered = _own_bytes(sharing), _distinct_bytes(sharing)
    if covered < own:
        notes.append(
            f"parameters share memory: structure counts each, as PyTorch ({units.bytes_(own)}), "
            f"memory what they share once ({units.bytes_(covered)})"
        )
    return tuple(notes)


def _sharing_a_storage(model: nn.Module) -> list[torch.Tensor]:
    """The parameters, or parts of them, whose storage another one has, too."""
    by_storage: dict[int, list[torch.Tensor]] = {}
    for parameter in parameters(model):
        for part in () if is_lazy(parameter) else parts_of(parameter):
            storage = storage_of(part)
            if storage is not None:
                by_storage.setdefault(storage._cdata, []).append(part)
    return [part for parts in by_storage.values() if len(parts) > 1 for part in parts]
