"""What a tensor of any kind has: a shape, bytes, the plain tensors it is made of, their storages.

A sparse, nested, quantized or wrapped tensor answers some of PyTorch's own questions with an
error. These here are asked while somebody's model runs, and are never a reason for it to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

# Asked first, as most tensors are of these.
_USUAL = frozenset({torch.Tensor, torch.nn.Parameter})
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape; of a nested tensor, whose rows differ in length, as if it were padded.

    Empty where a tensor cannot say.
    """
    try:
        return _padded_shape(tensor) if tensor.is_nested else tuple(int(n) for n in tensor.shape)
    except Exception:
        return ()


def _padded_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    with _unseen():
        sizes = [tuple(part.shape) for part in tensor.unbind()]
    return (len(sizes), *(max(lengths) for lengths in zip(*sizes, strict=True)))


def elements_of(tensor: torch.Tensor) -> int:
    """How many it has, also those that a sparse tensor does not store; 0 where it cannot say."""
    return 0 if is_lazy(tensor) else tensor.numel()


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements; those of its parts where it is made of several.

    A view that repeats its elements (`torch.Tensor.expand`) has those that lie in memory. 0 where
    a tensor cannot say.
    """
    try:
        parts = parts_of(tensor)
        if len(parts) != 1 or parts[0] is not tensor:
            return sum(bytes_of(part) for part in parts)
        size = tensor.numel() * tensor.element_size()
        storage = storage_of(tensor)
        return size if storage is None else min(size, storage.nbytes())
    except Exception:
        return 0


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is one block of numbers with strides, which a tensor without memory can mimic."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and not is_traceable_wrapper_subclass(tensor)
    )


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold its numbers: itself, or indices and values, or what it wraps."""
    if tensor.layout is torch.strided and (
        type(tensor) in _USUAL or not is_traceable_wrapper_subclass(tensor)
    ):
        return [tensor]
    try:
        with _unseen():
            return list(_parts(tensor))
    except Exception:
        return [tensor]


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _parts(getattr(tensor, name))
    elif tensor.layout is torch.sparse_coo:
        yield tensor._indices()
        yield tensor._values()
    elif tensor.layout in _COMPRESSED:
        for name in _COMPRESSED[tensor.layout]:
            yield getattr(tensor, name)()
    else:
        yield tensor


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The storage of one of `parts_of`; ``None`` for a tensor without one (mkldnn)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


@contextmanager
def _unseen() -> Iterator[None]:
    """Whoever watches a model's operators must not see those that a question takes."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield
