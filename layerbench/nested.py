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
