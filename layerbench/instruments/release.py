"""The memory of tensors that a run lets go, though they are kept, is released while it runs.

What keeps a tensor holds its memory, too: that of a buffer which a forward replaces would count
until the end. So each tensor is held in one place, which is looked at between operators: where
nothing else refers to it, its memory is released. The object stays, and comes back as itself.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

# So many are looked at between two operators, which takes some microseconds.
_AT_ONCE = 500


class HeldOnce:
    """Stands for a tensor wherever it is kept.

    Args:
        among: the only list that holds it.
        index: its place there.
    """

    __slots__ = ("_among", "_index")

    def __init__(self, among: list[torch.Tensor], index: int) -> None:
        self._among = among
        self._index = index

    def __call__(self) -> torch.Tensor:
        """The tensor."""
        return self._among[self._index]


class Releaser:
    """Holds tensors once, and releases the memory of those that nobody else holds."""

    def __init__(self) -> None:
        self._chunks: deque[list[torch.Tensor]] = deque([[]])

    def hold(self, tensor: torch.Tensor) -> HeldOnce:
        """Hold a tensor whose contents are kept elsewhere; gives what stands for it."""
        if len(self._chunks[0]) == _AT_ONCE:
            self._chunks.appendleft([])
        self._chunks[0].append(tensor)
        return HeldOnce(self._chunks[0], len(self._chunks[0]) - 1)

    def release(self) -> None:
        """Release what nobody else holds any more; of very many tensors look at the next ones."""
        self._chunks.rotate()
        chunk = self._chunks[0]
        counts = _references(chunk)
        if _OURS in counts:
            for tensor, count in zip(chunk, counts, strict=True):
                if count == _OURS:
                    _release(tensor)


def _references(objects: list[Any]) -> list[int]:
    return list(map(sys.getrefcount, objects))


# How many references there are to what a list alone holds, while they are counted.
_OURS = _references([object()])[0]


def _release(tensor: torch.Tensor) -> None:
    # Who knows it by a weak reference may yet ask for it.
    if tensor.numel() and not weakref.getweakrefcount(tensor):
        with (
            torch._C.DisableTorchFunctionSubclass(),
            _disable_current_modes(),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
