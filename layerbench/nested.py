"""Tensors in nested values: what models take and return comes in lists, tuples and dicts.

torch is loaded when a value is looked into, so that whoever only parses inputs needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors in nested lists, tuples, sets and mappings, in order.

    torchvision's ImageList, which its detectors hand from module to module, counts as the
    tensor it holds.
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(getattr(value, "tensors", None), torch.Tensor):
        yield value.tensors  # type: ignore[attr-defined]


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape; of a nested tensor, whose rows differ in length, as if it were padded.

    Empty where a tensor cannot say: a shape is looked at while somebody's model runs, and never a
    reason for it to fail.
    """
    try:
        return _padded_shape(tensor) if tensor.is_nested else tuple(int(n) for n in tensor.shape)
    except Exception:
        return ()


def _padded_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    # Asking takes operators; whoever watches the model's own must not see them.
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        sizes = [tuple(part.shape) for part in tensor.unbind()]
    return (len(sizes), *(max(lengths) for lengths in zip(*sizes, strict=True)))


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements; those of a sparse tensor's parts, 0 where it cannot say."""
    try:
        if tensor.is_sparse:
            return tensor._indices().nbytes + tensor._values().nbytes
        return tensor.nbytes
    except Exception:
        return 0


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:  # noqa: ANN401
    """The same nesting of lists, tuples and dicts with each tensor changed, the rest as it was."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if type(value) in (list, tuple):
        return type(value)(map_tensors(item, change) for item in value)
    return value
