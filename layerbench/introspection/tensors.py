"""Shape, bytes, parts and storages of a tensor of any kind.

For a sparse, nested, quantized or wrapped tensor some of PyTorch's own methods raise. These
functions run beside somebody's model and never raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

from layerbench.errors import DeviceUnavailable

# Checked first, since most tensors are of these.
_USUAL = frozenset({torch.Tensor, torch.nn.Parameter})
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape; the padded one of a nested tensor, whose rows differ in length.

    Empty if the tensor has none.
    """
    try:
        return _padded_shape(tensor) if tensor.is_nested else tuple(int(n) for n in tensor.shape)
    except Exception:
        return ()


def _padded_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    with _unobserved():
        sizes = [tuple(part.shape) for part in tensor.unbind()]
    return (len(sizes), *(max(lengths) for lengths in zip(*sizes, strict=True)))


def beneath_transforms(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor of `torch.vmap` or of another transform stands for; any other one itself."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def elements_of(tensor: torch.Tensor) -> int:
    """How many it has, also those that a sparse tensor does not store; 0 for a lazy one."""
    return 0 if is_lazy(tensor) else tensor.numel()


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements; those of all its parts if it has several.

    A view that repeats its elements (`torch.Tensor.expand`) counts those in memory. 0 if
    they cannot be read.
    """
    return sum(map(bytes_of_part, parts_of(tensor)))


def bytes_of_part(part: torch.Tensor) -> int:
    """Bytes of the elements of one of `parts_of`; 0 if they cannot be read."""
    try:
        size = part.numel() * part.element_size()
        storage = storage_of(part)
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
    """All that it consists of: `holders_of` its numbers, and `lengths_of` its rows."""
    return [*holders_of(tensor), *lengths_of(tensor)]


def holders_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold its numbers: itself, indices and values, or the wrapped ones."""
    if tensor.layout is torch.strided and (
        type(tensor) in _USUAL or not is_traceable_wrapper_subclass(tensor)
    ):
        return [tensor]
    try:
        with _unobserved():
            return list(_parts(tensor))
    except Exception:
        return [tensor]


def lengths_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The int64 tensors of a strided nested tensor: its rows' sizes, strides and offsets.

    They lie on the host wherever the tensor is, and several tensors may share them. Other
    tensors have none.
    """
    if not tensor.is_nested or tensor.layout is not torch.strided:
        return []
    try:
        with _unobserved():
            return [
                tensor._nested_tensor_size(),
                tensor._nested_tensor_strides(),
                tensor._nested_tensor_storage_offsets(),
            ]
    except Exception:
        return []


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


def check_values(tensors: Iterable[torch.Tensor]) -> None:
    """Refuse to measure a model that has tensors on the meta device.

    Raises:
        DeviceUnavailable: with what can be done.
    """
    if any(tensor.is_meta for tensor in tensors):
        raise DeviceUnavailable(
            "the model has tensors on the meta device, which hold no values: give them memory, "
            "such as by to_empty(device='cpu'); structure and predicted memory need no values"
        )


@contextmanager
def _unobserved() -> Iterator[None]:
    """Hide the operators of these functions from modes that observe a model's operators."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield
