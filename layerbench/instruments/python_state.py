"""What plain Python objects hold: noted before a run, put back in place after it.

From a model everything is followed that a forward may write: attributes, lists, dicts, sets,
deques, slots, arrays, what hooks and functions close over, attributes of the model's classes, and
the globals that its code names. Objects keep their identity: the same list has its earlier content.
Tensors are only gathered here; `layerbench.instruments.tensor_state` keeps them.

Known limitations: what compiled code holds inside (locks, open files, connections) is passed
over; a generator cannot be put back, and `PythonState.unkept` names it.
"""

from __future__ import annotations

import argparse
import array
import ast
import collections
import contextvars
import copy
import functools
import itertools
import queue
import random
import threading
import types
import warnings
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench.environment.collection import no_collection
from layerbench.instruments.code_names import globals_named, is_users, package_of
from layerbench.instruments.kept import (
    Kept,
    KeptArray,
    KeptBytes,
    KeptCell,
    KeptClass,
    KeptClassAttributes,
    KeptContextVar,
    KeptDraws,
    KeptGlobal,
    KeptItems,
    KeptMapping,
    KeptScripted,
    KeptSlot,
)
from layerbench.instruments.release import HeldOnce, Releaser, holders_of
from layerbench.introspection.modules import (
    PROXIES,
    children,
    is_dead,
    own_buffers,
    own_parameters,
)

# What holds nothing that a forward could change.
_ATOMS: frozenset[type] = frozenset(
    {
        *(int, float, complex, bool, str, bytes, type(None), type(...), range, slice, object),
        *(torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format),
        *(types.ModuleType, types.BuiltinFunctionType, types.FrameType, types.CodeType),
        *(types.TracebackType, types.MethodWrapperType, types.WrapperDescriptorType),
        *(types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType),
    }
)
# A copy of an iterator stands in its place during the run.
_ITERATORS: tuple[type, ...] = (
    *(type(iter([])), type(iter(())), type(iter({})), type(iter(set())), type(iter(""))),
    type(iter(range(0))),
    *(itertools.count, itertools.cycle, itertools.repeat, itertools.chain),
    *(enumerate, zip, map, filter, reversed),
)
_SIMPLE_ITERATORS = frozenset({itertools.count, itertools.repeat, *_ITERATORS[:6]})
_DRAWN = frozenset({*_ITERATORS, types.GeneratorType, types.AsyncGeneratorType})
# Instances of the standard library's classes are passed over, but for these.
_PLAIN = (
    *(types.SimpleNamespace, threading.local, functools.partial, weakref.WeakValueDictionary),
    *(collections.UserDict, collections.UserList, collections.ChainMap, weakref.WeakKeyDictionary),
    *(weakref.WeakSet, random.Random, queue.Queue, argparse.Namespace),
)
# Engines with a life of their own: what they learn in a run is no state of the model.
_ENGINES = (
    *("torch._dynamo", "torch._inductor", "torch._subclasses", "torch.fx", "torch._C", "torch.jit"),
)
_BARE_MAPPINGS = (dict, OrderedDict)
_HEAP_TYPE = 1 << 9  # of a class's flags: made by a class statement, or as if by one


class PythonState:
    """What is reachable from some roots, and a way back to it.

    Args:
        roots: models, arguments, any objects.
        code: whether classes and functions are followed to what they close over and name.

    Attributes:
        tensors: those reached through attributes and containers.
        table_tensors: those in the modules' own tables: parameters and buffers.
        unkept: says what cannot be put back.
    """

    def __init__(self, roots: Iterable[object], *, code: bool = True) -> None:
        self.tensors: list[torch.Tensor] = []
        self.table_tensors: list[torch.Tensor] = []
        self.unkept: list[str] = []
        self._code = code
        self._kept: list[Kept] = []
        self._seen: dict[object, object] = {}
        self._in_table: set[int] = set()
        self._tables: set[int] = set()
        self._followed: dict[type, bool] = {}
        self._slots: dict[type, list[Any]] = {}
        self._pending: list[object] = []
        self._elsewhere: list[Kept] = []
        self._stand_ins: list[HeldOnce] = []
        self._push(roots)
        # Nothing here is garbage, and there is much of it: a collection would look at all of it.
        with no_collection():
            while self._pending:
                self._visit(self._pending.pop())

    def hold_elsewhere(self, tensors: Mapping[int, HeldOnce], releaser: Releaser) -> None:
        """Let another hold some of the tensors, and what holds them, until they are restored.

        Args:
            tensors: what stands for a tensor, by the tensor's id.
            releaser: holds them.
        """
        held = {**tensors}
        ours = Counter(id(kept.holder) for kept in self._kept)
        for holder in self._holders_of(tensors):
            held[id(holder)] = releaser.hold(holder, others=ours[id(holder)])
        self._elsewhere = [kept for kept in self._kept if kept.exchange(held)]
        self._stand_ins = [*held.values()]
        self.tensors, self.table_tensors, self._seen = [], [], {}

    def _holders_of(self, tensors: Iterable[int]) -> list[object]:
        """What may be let go with tensors; a module, which the run's instruments know, is not."""
        among = [value for key, value in self._seen.items() if key == id(value)]
        modules = [value for value in among if isinstance(value, nn.Module)]
        lasting = self._tables.union(id(module.__dict__) for module in modules)
        return holders_of(tensors, among, lasting)

    def restore(self) -> bool:
        """Restore changed values; returns whether anything had changed."""
        changed = False
        themselves = {id(stand_in): stand_in() for stand_in in self._stand_ins}
        for kept in self._elsewhere:
            kept.exchange(themselves)
        self._elsewhere.clear()
        for kept in self._kept:
            try:
                changed = kept.restore() or changed
            except Exception as error:  # the rest must come back all the same
                what = type(kept.holder).__name__
                warnings.warn(f"a {what} could not be put back: {error!r}", stacklevel=2)
        return changed

    def draws(self) -> list[Kept]:
        """The kept generators of random numbers."""
        return [one for one in self._kept if isinstance(one, KeptDraws)]

    def _push(self, values: Iterable[object]) -> None:
        self._pending += [value for value in values if type(value) not in _ATOMS]

    def _keep(self, kept: Kept) -> None:
        self._kept.append(kept)

    def _visit(self, value: Any) -> None:  # noqa: ANN401 - anything
        if id(value) in self._seen:
            return
        kind = type(value)
        if kind in PROXIES and is_dead(value):
            return
        self._seen[id(value)] = value
        if kind in _BARE_MAPPINGS:
            self._mapping(value)
            return
        if issubclass(kind, dict):
            self._mapping(value)
        elif issubclass(kind, torch.Tensor):
            self.tensors.append(value)
            self._of_tensor(value)
            return
        elif issubclass(kind, nn.Module):
            if issubclass(kind, (list, set)):
                self._container(value)
            self._module(value)
            return
        elif issubclass(kind, (list, deque, set, bytearray, array.array, np.ndarray)):
            self._container(value)
        elif issubclass(kind, (tuple, frozenset)):
            self._push(value)
        elif self._is_code(value):
            return
        else:
            self._draws(value)
        self._object(value)

    # --- containers ------------------------------------------------------------------------

    def _mapping(self, mapping: dict[Any, Any]) -> None:
        base = OrderedDict if isinstance(mapping, OrderedDict) else dict
        kept = KeptMapping(base, mapping)
        self._keep(kept)
        keys, values = kept.earlier
        if id(mapping) in self._tables:
            for tensor in values:
                if isinstance(tensor, torch.Tensor):
                    self._table_tensor(tensor)
            return
        if not values:
            return
        self._push(values)
        if {*map(type, keys)} != {str}:
            self._push(keys)
        if not _DRAWN.isdisjoint(map(type, values)):
            for key, value in zip(keys, values, strict=True):
                if type(value) in _DRAWN:
                    self._iterator(value, key, partial(base.__setitem__, mapping, key))

    def _container(self, container: Any) -> None:  # noqa: ANN401 - one of several
        if isinstance(container, np.ndarray):
            if container.flags.writeable:
                self._keep(KeptArray(container, container.copy()))
            if container.dtype == object:
                self._push(container.ravel().tolist())
            return
        if isinstance(container, (bytearray, array.array)):
            self._keep(KeptBytes(container, container[:]))
            return
        kept = KeptItems(container)
        self._keep(kept)
        self._push(kept.earlier)
        if isinstance(container, list) and not _DRAWN.isdisjoint(map(type, kept.earlier)):
            for index, value in enumerate(kept.earlier):
                if type(value) in _DRAWN:
                    self._iterator(value, index, partial(list.__setitem__, container, index))

    def _iterator(self, value: Any, place: object, put: Callable[[Any], None]) -> None:  # noqa: ANN401
        """Let a copy run in an iterator's place, whose holder is kept."""
        try:
            put(_copy_of_iterator(value))
        except Exception:
            self.unkept.append(f"{type(value).__name__} {place!r}")

    # --- objects ---------------------------------------------------------------------------

    def _module(self, module: nn.Module) -> None:
        self._keep(KeptClass(module, type(module)))
        attributes = module.__dict__
        for name in ("_parameters", "_buffers"):
            self._tables.add(id(attributes.get(name)))
        if isinstance(module, torch.jit.ScriptModule):
            for tensor in (*own_parameters(module), *own_buffers(module)):
                self._table_tensor(tensor)
            self._push(children(module))
            if "_c" in attributes:
                kept = KeptScripted(attributes["_c"])
                self._keep(kept)
                self._push(kept.earlier.values())
        self._pending.append(attributes)
        self._slots_in(module)
        self._class(type(module))

    def _table_tensor(self, tensor: torch.Tensor) -> None:
        if id(tensor) not in self._in_table:
            self._in_table.add(id(tensor))
            self.table_tensors.append(tensor)
            self._of_tensor(tensor)

    def _of_tensor(self, tensor: torch.Tensor) -> None:
        with torch._C.DisableTorchFunctionSubclass():
            self._pending.append(tensor.__dict__)
            for hooks in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks):
                if hooks:
                    self._pending.append(hooks)
            self._slots_in(tensor)

    def _object(self, value: Any) -> None:  # noqa: ANN401 - any instance
        kind = type(value)
        if not self._is_followed(kind):
            return
        attributes = _attributes_of(value)
        if attributes:
            self._pending.append(attributes)
        elif attributes is not None:
            self._keep(KeptMapping(dict, attributes))
        self._slots_in(value)
        self._class(kind)

    def _is_followed(self, kind: type) -> bool:
        followed = self._followed.get(kind)
        if followed is None:
            followed = self._followed[kind] = _is_followed(kind)
        return followed

    def _slots_in(self, value: Any) -> None:  # noqa: ANN401 - any instance
        for slot in self._slots_of(type(value)):
            kept = KeptSlot(slot, value)
            self._keep(kept)
            self._push((kept.earlier,))
            if type(kept.earlier) in _DRAWN:
                put = partial(slot.__set__, value)
                self._iterator(kept.earlier, slot.__name__, put)

    def _slots_of(self, kind: type) -> list[Any]:
        slots = self._slots.get(kind)
        if slots is None:
            slots = self._slots[kind] = [
                member
                for above in kind.__mro__
                if above.__flags__ & _HEAP_TYPE
                for member in vars(above).values()
                if type(member) is types.MemberDescriptorType
            ]
        return slots

    def _draws(self, value: Any) -> None:  # noqa: ANN401 - any object
        """Generators of random numbers and the like, whose state is not in attributes."""
        if isinstance(value, random.Random):
            self._keep(KeptDraws(value.getstate(), value.setstate))
        elif isinstance(value, np.random.RandomState):
            self._keep(KeptDraws(value.get_state(), value.set_state))
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            put_back = functools.partial(setattr, bits, "state")
            self._keep(KeptDraws(copy.deepcopy(bits.state), put_back))
        elif isinstance(value, torch.Generator):
            self._keep(KeptDraws(value.get_state(), value.set_state))
        elif isinstance(value, contextvars.ContextVar):
            kept = KeptContextVar(value)
            self._keep(kept)
            self._push((kept.earlier,))
        elif isinstance(value, weakref.ref):
            self._push((value(),))

    # --- code ------------------------------------------------------------------------------

    def _is_code(self, value: Any) -> bool:  # noqa: ANN401 - any object
        """Follow functions, classes and cells; returns whether ``value`` is one."""
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._push((value.__self__, value.__func__))
        elif isinstance(value, types.CellType):
            kept = KeptCell(value)
            self._keep(kept)
            self._push((kept.earlier,))
            if type(kept.earlier) in _DRAWN:
                put = partial(setattr, value, "cell_contents")
                self._iterator(kept.earlier, "in a closure", put)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, functools.partial):
            self._push((value.func, value.args, value.keywords))
            return False
        elif isinstance(value, property):
            self._push((value.fget, value.fset))
        elif isinstance(value, (staticmethod, classmethod)):
            self._push((value.__func__,))
        elif isinstance(value, functools._lru_cache_wrapper):
            self._push((value.__wrapped__,))
        else:
            return False
        return True

    def _function(self, function: types.FunctionType) -> None:
        if not self._code or not is_users(function.__module__):
            return
        self._push(function.__closure__ or ())
        self._push((function.__defaults__, function.__kwdefaults__, function.__dict__))
        package = package_of(function.__module__)
        for space, name, value in globals_named(function):
            key = id(space), name
            if key in self._seen:
                continue
            self._seen[key] = space
            self._keep(KeptGlobal(space, name))
            if type(value) in _DRAWN:
                self._iterator(value, name, partial(space.__setitem__, name))
            elif _followed_as_global(value, package):
                self._push((value,))

    def _class(self, kind: type) -> None:
        if not self._code:
            return
        for above in kind.__mro__:
            key = -id(above)  # an instance's visit must not hide its class's
            if key in self._seen or not is_users(above.__module__):
                continue
            self._seen[key] = above
            kept = KeptClassAttributes(above)
            self._keep(kept)
            self._push(kept.earlier.values())
            for name, value in kept.earlier.items():
                if type(value) in _DRAWN:
                    self._iterator(value, name, partial(type.__setattr__, above, name))


def _is_followed(kind: type) -> bool:
    """Whether an instance's attributes are state of the model."""
    if not kind.__flags__ & _HEAP_TYPE:
        return issubclass(kind, _PLAIN)
    module = kind.__module__
    if is_users(module):
        return True
    if package_of(module) == "torch":
        return not module.startswith(_ENGINES) or issubclass(kind, torch.fx.Interpreter)
    return issubclass(kind, (*_PLAIN, dict, list, tuple, deque, set))


def _followed_as_global(value: object, package: str) -> bool:
    """Whether a global is state of the code that names it; a library's own objects are not."""
    kind = type(value)
    if isinstance(value, (types.FunctionType, type)):
        return is_users(value.__module__)
    plain = (dict, list, set, deque, tuple, np.ndarray, torch.Tensor, nn.Module, types.CellType)
    more = (
        *_PLAIN,
        contextvars.ContextVar,
        torch.Generator,
        np.random.Generator,
        functools._lru_cache_wrapper,
    )
    return isinstance(value, (*plain, *more)) or package_of(kind.__module__) == package


def _copy_of_iterator(value: Any) -> Any:  # noqa: ANN401 - an iterator
    """One that goes on as it does.

    Raises:
        TypeError: such an iterator cannot be copied; from Python 3.14 on these are most of
            `itertools`.
        ValueError: it counts in what is no number.
    """
    alike = copy.copy if type(value) in _SIMPLE_ITERATORS else copy.deepcopy
    try:
        return alike(value)
    except TypeError:
        if not isinstance(value, itertools.count):
            raise
    # It is written as the call that makes it.
    return itertools.count(*ast.literal_eval(repr(value).removeprefix("count").replace(")", ",)")))


def _attributes_of(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any instance
    try:
        if isinstance(value, threading.local):
            attributes: Any = value.__dict__
        else:
            attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return attributes if isinstance(attributes, dict) else None
