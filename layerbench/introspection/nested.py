"""Tensors in nested values: models take and return containers and objects.

torch is loaded when a value is searched, so that parsing an input loads none.
"""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

# A chain of objects may lead to everything in the process.
_OBJECTS_DEEP = 4
_NESTED_DEEP = 64
_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None), range, slice)
_CLOSED = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.GeneratorType,
    types.CoroutineType,
)

_CLOSED_PLACES = {"builtins", "numpy"}

Change = Callable[["torch.Tensor"], "torch.Tensor"]


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors in nested lists, tuples, sets, mappings and objects, in order.

    The attributes of an object (a dataclass, a distribution, torchvision's ImageList) are searched,
    except for modules: a model's tensors are not part of its inputs and outputs.
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif not isinstance(value, _PLAIN):
        yield from _tensors_inside(value, [], objects=0)


def tensors_in_plain(value: object, deep: int = _NESTED_DEEP) -> Iterator[torch.Tensor]:
    """The tensors in Python's own tuples, lists and dicts; what is somebody's own is not asked.

    Args:
        value: of any kind.
        deep: how far to look: a list may hold itself.
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (tuple, list, dict) and deep:
        parts: Any = value.values() if isinstance(value, dict) else value
        for part in parts:
            yield from tensors_in_plain(part, deep - 1)


def has_tensor(value: object) -> bool:
    """Whether there is a tensor in it; no if a container of the user's cannot be read."""
    try:
        return next(tensors_in(value), None) is not None
    except Exception:
        return False


def _tensors_inside(value: object, above: list[object], *, objects: int) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
        return
    if isinstance(value, _PLAIN) or len(above) > _NESTED_DEEP:
        return
    parts: Any
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = value
    elif objects < _OBJECTS_DEEP and _is_open(value):
        objects += 1
        parts = _attributes(value).values()
    else:
        return
    if any(value is one for one in above):
        return
    above.append(value)
    for part in parts:
        if not isinstance(part, _PLAIN):
            yield from _tensors_inside(part, above, objects=objects)
    above.pop()


def _is_open(value: object) -> bool:
    """Whether an object holds values as a container does: none of the language's, no module."""
    import torch

    kind = type(value)
    has_attributes = kind.__dictoffset__ != 0 or bool(_slots(kind))
    closed = isinstance(value, (*_CLOSED, torch.nn.Module)) or kind.__module__ in _CLOSED_PLACES
    return has_attributes and not closed


_known_slots: WeakKeyDictionary[type, dict[str, types.MemberDescriptorType]] = WeakKeyDictionary()


def _slots(kind: type) -> dict[str, types.MemberDescriptorType]:
    """The attributes that instances keep in slots, the base classes' first."""
    if kind not in _known_slots:
        _known_slots[kind] = _find_slots(kind)
    return _known_slots[kind]


def _find_slots(kind: type) -> dict[str, types.MemberDescriptorType]:
    return {
        name: member
        for base in reversed(kind.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
        and name not in ("__dict__", "__weakref__")
    }


def _attributes(value: object) -> dict[str, object]:
    """An object's own attributes that have a value now: those in slots, and those in its dict."""
    attributes: dict[str, object] = {}
    for name, member in _slots(type(value)).items():
        with suppress(AttributeError):
            attributes[name] = member.__get__(value)
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict):
        attributes.update((name, item) for name, item in held.items() if isinstance(name, str))
    return attributes


def map_tensors(value: Any, change: Change) -> Any:  # noqa: ANN401 - any nesting
    """The same nesting with each tensor changed, and the rest unchanged.

    Containers and objects keep their type; one without a tensor in it is passed on itself. A
    tensor that comes several times is changed once.
    """
    return _Mapping(change).of(value)


class _Mapping:
    """One walk through a value."""

    def __init__(self, change: Change) -> None:
        self._change = change
        # Each value with its changed form, by identity, which holds as long as the value does.
        self._done: dict[int, tuple[object, Any]] = {}

    def of(self, value: Any) -> Any:  # noqa: ANN401 - any nesting
        if isinstance(value, _PLAIN):
            return value
        entry = self._done.get(id(value))
        if entry is not None:
            return entry[1]
        if next(tensors_in(value), None) is None:
            return value
        changed = self._changed(value)
        self._done[id(value)] = (value, changed)
        return changed

    def _changed(self, value: Any) -> Any:  # noqa: ANN401 - any nesting
        import torch
        from torch.nn.utils.rnn import PackedSequence

        if isinstance(value, torch.Tensor):
            return self._change(value)
        kinds: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            (PackedSequence, self._packed),
            (tuple, lambda v: _like_tuple(v, [self.of(item) for item in v])),
            (Mapping, self._mapping),
            (list, self._list),
            ((set, frozenset), lambda v: type(v)(self.of(item) for item in v)),
            (deque, lambda v: type(v)((self.of(item) for item in v), v.maxlen)),
        )
        return next((make for kind, make in kinds if isinstance(value, kind)), self._object)(value)

    def _packed(self, value: Any) -> Any:  # noqa: ANN401 - a PackedSequence
        """Its batch sizes are numbers for the host, and stay there."""
        data, sizes, sorted_indices, unsorted_indices = value
        parts = (self.of(data), sizes, self.of(sorted_indices), self.of(unsorted_indices))
        return tuple.__new__(type(value), parts)

    def _list(self, value: list[Any]) -> list[Any]:
        twin = [] if type(value) is list else copy.copy(value)
        self._done[id(value)] = (value, twin)
        twin[:] = [self.of(item) for item in value]
        return twin

    def _mapping(self, value: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - of the same type
        if isinstance(value, types.MappingProxyType):
            return types.MappingProxyType({key: self.of(item) for key, item in value.items()})
        if not isinstance(value, MutableMapping):
            # It cannot be written: its items are attributes.
            return self._object(value)
        twin = {} if type(value) is dict else copy.copy(value)
        self._done[id(value)] = (value, twin)
        for key, item in value.items():
            twin[key] = self.of(item)
        return twin

    def _object(self, value: Any) -> Any:  # noqa: ANN401 - of the same type
        # A copy, as a constructor may compute; written past a frozen dataclass's refusal.
        twin = copy.copy(value)
        self._done[id(value)] = (value, twin)
        for name, item in _attributes(value).items():
            object.__setattr__(twin, name, self.of(item))
        return twin


def _like_tuple(value: tuple[Any, ...], items: list[Any]) -> Any:  # noqa: ANN401 - of the same type
    if hasattr(value, "_make"):
        return value._make(items)
    if type(value) is tuple or hasattr(value, "n_sequence_fields"):
        return type(value)(items)
    twin = tuple.__new__(type(value), items)
    getattr(twin, "__dict__", {}).update(getattr(value, "__dict__", {}))
    return twin
