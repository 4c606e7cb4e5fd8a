"""The memory of tensors that a run lets go, though they are kept, is released while it runs.

What keeps a tensor holds its memory, too: that of a buffer which a forward replaces would count
until the end. So each tensor is held in one place, which is looked at between operators: where
nothing else refers to it, its memory is released. The object stays, and comes back as itself.

A tensor may go with what holds it: a tuple, a list of tuples, an object. These are held and
looked at in the same way; of one that is let go, the references to its parts are ours.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from operator import eq
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

# So many are looked at between two operators, which takes 20 microseconds: most models have fewer.
_AT_ONCE = 400

# A run's instruments refer to modules, too, and code lives on by itself.
_LASTING = (torch.Tensor, nn.Module, type, types.FunctionType, types.MethodType, types.CellType)


class _Chunk:
    """Objects that are looked at together, and how many references we have to each."""

    __slots__ = ("objects", "ours")

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.ours: list[int] = []

    def held_by_us_alone(self) -> list[Any]:
        """Those which nobody else refers to any more, each given once."""
        counts = _references(self.objects)
        if not any(map(eq, counts, self.ours)):
            return []
        alone = [index for index, count in enumerate(counts) if count == self.ours[index]]
        for index in alone:
            self.ours[index] = 0
        return [self.objects[index] for index in alone]


def _references(objects: list[Any]) -> list[int]:
    return list(map(sys.getrefcount, objects))


# How many references there are to what a chunk alone holds, while they are counted.
_OURS = _references([object()])[0]


class HeldOnce:
    """Stands for an object wherever it is kept.

    Args:
        chunk: the only one that holds it.
        index: its place there.
    """

    __slots__ = ("_chunk", "_index")

    def __init__(self, chunk: _Chunk, index: int) -> None:
        self._chunk = chunk
        self._index = index

    def __call__(self) -> Any:  # noqa: ANN401 - of any type
        """The object."""
        return self._chunk.objects[self._index]

    def add_reference(self) -> None:
        """Count one more reference as ours."""
        self._chunk.ours[self._index] += 1


class Releaser:
    """Holds objects once, and releases the memory of tensors that nobody else holds."""

    def __init__(self) -> None:
        self._chunks: deque[_Chunk] = deque([_Chunk()])
        self._held: dict[int, HeldOnce] = {}

    def hold(self, value: object, others: int = 0) -> HeldOnce:
        """Hold an object.

        Args:
            value: a tensor whose contents are kept elsewhere, or what refers to such tensors.
            others: how many references to it are ours, besides this one.

        Returns:
            What stands for it.
        """
        if len(self._chunks[0].objects) == _AT_ONCE:
            self._chunks.appendleft(_Chunk())
        chunk = self._chunks[0]
        chunk.objects.append(value)
        chunk.ours.append(_OURS + others)
        held = self._held[id(value)] = HeldOnce(chunk, len(chunk.objects) - 1)
        return held

    def release(self) -> None:
        """Release what nobody else holds any more; of very many objects look at the next ones."""
        self._chunks.rotate()
        while alone := self._chunks[0].held_by_us_alone():
            for value in alone:
                self._let_go(value)

    def _let_go(self, value: object) -> None:
        # Who knows it by a weak reference may yet ask for it.
        if weakref.getweakrefcount(value):
            return
        if isinstance(value, torch.Tensor):
            # Older releases of PyTorch do not count what C++ holds among the references.
            if value._use_count() == 1:  # type: ignore[attr-defined]
                _release(value)
            return
        for part in gc.get_referents(value):
            if id(part) in self._held:
                self._held[id(part)].add_reference()


def _release(tensor: torch.Tensor) -> None:
    with (
        torch._C.DisableTorchFunctionSubclass(),
        _disable_current_modes(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def holders_of(
    tensors: Iterable[int], among: Iterable[object], lasting: Collection[int]
) -> list[object]:
    """What holds tensors, directly or not, and may be let go with them.

    Args:
        tensors: their ids.
        among: what is looked through.
        lasting: ids of what is not let go.
    """
    others = [
        value
        for value in among
        if not (_is_empty(value) or id(value) in lasting or isinstance(value, _LASTING))
    ]
    holders: list[object] = []
    parts = {*tensors}
    while parts:
        above = [
            value for value in others if not parts.isdisjoint(map(id, gc.get_referents(value)))
        ]
        holders += above
        parts = {id(value) for value in above}
        others = [value for value in others if id(value) not in parts]
    return holders


def _is_empty(value: object) -> bool:
    return type(value) in (dict, OrderedDict) and not value
