"""Tensors without memory that a run on stand-ins leaves behind, and how they are taken away.

What a model keeps is put back by `layerbench.instruments.python_state`. Others keep things, too: a
table in a cache (`functools.lru_cache`), in a dict of a library. There a tensor without contents
would meet the next forward.
"""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nested._internal import nested_tensor

from layerbench.instruments.code_names import package_of

# Who refers to a tensor for the moment only.
_PASSING = (types.FrameType, types.TracebackType, types.GeneratorType, types.CoroutineType)
_CONTAINERS = (dict, list, tuple, set, types.CellType, torch.Tensor)
# Nobody looks for a cache beyond these: they are referred to from everywhere.
_ENDS = (types.ModuleType, type, types.FunctionType)
# How far from a tensor its holder is looked for: a pair of tables in a cache's entry is 3.
_FAR = 6


def is_without_memory(tensor: torch.Tensor) -> bool:
    """Whether it is a meta or a fake tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return type(tensor).__name__ == "FakeTensor" or tensor.is_meta


class StrayTensors:
    """Finds the tensors without memory that come into being from now on, and takes them away.

    The garbage collector knows the youngest objects: they are looked through at the end, and each
    time that it makes some of them older.
    """

    def __init__(self) -> None:
        self._is_tensor: dict[type, bool] = {}
        self._example = _example_of_nested()
        self._before = {id(tensor): tensor for tensor in self._young()}
        self._aged: list[weakref.ref[torch.Tensor]] = []
        gc.callbacks.append(self._collecting)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        del info
        if phase == "start":
            self._aged += [weakref.ref(tensor) for tensor in self._young()]

    def _young(self) -> list[torch.Tensor]:
        is_tensor = self._is_tensor
        tensors = []
        for generation in (0, 1):
            for one in gc.get_objects(generation):
                kind = type(one)
                if kind not in is_tensor:
                    is_tensor[kind] = issubclass(kind, torch.Tensor)
                if is_tensor[kind]:
                    tensors.append(one)
        return [one for one in tensors if is_without_memory(one)]

    def remove(self) -> list[str]:
        """Empty the caches that hold such tensors; gives who still holds some, by type."""
        if self._example is None and _example_of_nested() is not None:
            nested_tensor._dummy_instance = None  # made anew where it is needed
        strays = self._strays()
        for generation in (1, 2):
            if strays:
                del strays
                gc.collect(generation)
                strays = self._strays()
        gc.callbacks.remove(self._collecting)
        for empty in (_clear_caches, _drop_entries):
            if strays and empty(strays):
                strays = self._strays()
        return sorted({type(holder).__name__ for holder in _holders(strays)}) if strays else []

    def _strays(self) -> list[torch.Tensor]:
        aged = [tensor for ref in self._aged if (tensor := ref()) is not None]
        every = {id(tensor): tensor for tensor in (*aged, *self._young())}
        return [tensor for key, tensor in every.items() if key not in self._before]


def _example_of_nested() -> torch.Tensor | None:
    """A nested tensor that PyTorch makes once, on the meta device, and keeps for its own use."""
    return getattr(nested_tensor, "_dummy_instance", None)


def _clear_caches(strays: Sequence[torch.Tensor]) -> bool:
    """Clear each `functools.lru_cache` that a stray is reached from."""
    caches = [
        holder
        for level in _levels(strays)
        for holder in level
        if isinstance(holder, functools._lru_cache_wrapper)
    ]
    for cache in caches:
        cache.cache_clear()
    return bool(caches)


def _drop_entries(strays: Sequence[torch.Tensor]) -> bool:
    """Drop strays, and tuples and lists of strays, from the dicts that hold them."""
    tainted = {id(stray) for stray in strays}
    dropped = False
    for level in _levels(strays):
        for holder in level:
            if isinstance(holder, dict) and not _is_namespace(holder):
                for key in [key for key, value in holder.items() if id(value) in tainted]:
                    del holder[key]
                    dropped = True
            elif isinstance(holder, (tuple, list)):
                tainted.add(id(holder))
    return dropped


def _is_namespace(mapping: dict[Any, Any]) -> bool:
    """Whether it holds the attributes of an object, or a module's globals."""
    return any(
        getattr(owner, "__dict__", None) is mapping or isinstance(owner, types.FunctionType)
        for owner in gc.get_referrers(mapping)
        if not isinstance(owner, _PASSING)
    )


def _holders(strays: Sequence[torch.Tensor]) -> Iterator[object]:
    """The lasting objects that hold a stray."""
    for level in _levels(strays, only_through=_CONTAINERS):
        for holder in level:
            inner = isinstance(holder, dict) and not _is_namespace(holder)
            if not (inner or isinstance(holder, _CONTAINERS[1:]) or _is_ours(holder)):
                yield holder


def _is_ours(holder: object) -> bool:
    """What this package still has in hand, or an error on its way."""
    named = holder if isinstance(holder, types.FunctionType) else type(holder)
    return package_of(named.__module__) == "layerbench" or isinstance(holder, BaseException)


def _levels(
    strays: Sequence[torch.Tensor], only_through: tuple[type, ...] = (object,)
) -> Iterator[list[Any]]:
    """Who refers to the strays, who refers to those, and so on, each once."""
    seen = {id(stray) for stray in strays}
    level: list[Any] = list(strays)
    for _ in range(_FAR):
        own = {id(level), id(strays)}
        above = [
            holder
            for holder in gc.get_referrers(*level)
            if not (id(holder) in seen or id(holder) in own or isinstance(holder, _PASSING))
        ]
        yield above
        seen.update(map(id, above))
        level = [
            holder
            for holder in above
            if isinstance(holder, only_through) and not isinstance(holder, _ENDS)
        ]
        if not level:
            return
