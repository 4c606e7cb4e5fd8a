"""What `layerbench.instruments.python_state` keeps of one holder of objects, by kind.

Base classes' own methods are called, as a class that overrides them must not notice.
"""

from __future__ import annotations

import contextvars
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench.instruments.code_names import MISSING

_OF_EVERY_CLASS = ("__dict__", "__weakref__")


class Kept:
    """A holder and what it held."""

    __slots__ = ("earlier", "holder")

    def __init__(self, holder: Any, earlier: Any) -> None:  # noqa: ANN401 - as the kind has it
        self.holder = holder
        self.earlier = earlier

    def restore(self) -> bool:
        """Restore the earlier contents; returns whether anything had changed."""
        raise NotImplementedError

    def exchange(self, others: Mapping[int, Any]) -> bool:
        """Keep others in the stead of earlier objects; returns whether there was one.

        Args:
            others: by the id of what each stands for.
        """
        del others
        return False


def _exchanged(values: tuple[Any, ...], others: Mapping[int, Any]) -> tuple[Any, ...]:
    """The values, or a tuple with others in the stead of some."""
    if not values or others.keys().isdisjoint(map(id, values)):
        return values
    return tuple(others.get(id(value), value) for value in values)


class KeptObject(Kept):
    """One object, in a place of its own."""

    __slots__ = ()

    def exchange(self, others: Mapping[int, Any]) -> bool:
        """As `Kept.exchange`."""
        earlier = self.earlier
        self.earlier = others.get(id(earlier), earlier)
        return self.earlier is not earlier


class KeptMapping(Kept):
    """A dict. ``earlier`` has its keys and its values."""

    __slots__ = ("base",)

    def __init__(self, base: Any, mapping: dict[Any, Any]) -> None:  # noqa: ANN401 - its type
        super().__init__(mapping, (tuple(base.keys(mapping)), tuple(base.values(mapping))))
        self.base = base

    def exchange(self, others: Mapping[int, Any]) -> bool:
        """As `Kept.exchange`; the keys stay."""
        keys, values = self.earlier
        exchanged = _exchanged(values, others)
        self.earlier = keys, exchanged
        return exchanged is not values

    def restore(self) -> bool:
        """As `Kept.restore`; also the order of the keys."""
        base, mapping = self.base, self.holder
        keys, values = self.earlier
        if (
            len(mapping) == len(keys)
            and all(map(is_, base.keys(mapping), keys))
            and all(map(is_, base.values(mapping), values))
        ):
            return False
        base.clear(mapping)
        for key, value in zip(keys, values, strict=True):
            base.__setitem__(mapping, key, value)
        return True


class KeptItems(Kept):
    """A list, deque or set."""

    __slots__ = ()

    def __init__(self, holder: Any) -> None:  # noqa: ANN401 - one of several
        super().__init__(holder, tuple(self._items(holder)))

    @staticmethod
    def _items(holder: Any) -> Iterable[Any]:  # noqa: ANN401
        base: Any = next(kind for kind in (list, deque, set) if isinstance(holder, kind))
        items: Iterable[Any] = base.__iter__(holder)
        return items

    def exchange(self, others: Mapping[int, Any]) -> bool:
        """As `Kept.exchange`."""
        earlier = self.earlier
        self.earlier = _exchanged(earlier, others)
        return self.earlier is not earlier

    def restore(self) -> bool:
        """As `Kept.restore`."""
        holder, earlier = self.holder, self.earlier
        if len(holder) == len(earlier) and all(map(is_, self._items(holder), earlier)):
            return False
        if isinstance(holder, list):
            list.__setitem__(holder, slice(None), earlier)
        elif isinstance(holder, deque):
            deque.clear(holder)
            deque.extend(holder, earlier)
        else:
            set.clear(holder)
            set.update(holder, earlier)
        return True


class KeptArray(Kept):
    """A numpy array."""

    __slots__ = ()

    def restore(self) -> bool:
        """As `Kept.restore`."""
        array, earlier = self.holder, self.earlier
        if array.shape != earlier.shape:
            array.resize(earlier.shape, refcheck=False)
        elif array.dtype == object:
            if all(map(is_, array.flat, earlier.flat)):
                return False
        elif array.tobytes() == earlier.tobytes():
            return False
        np.copyto(array, earlier)
        return True


class KeptBytes(Kept):
    """A bytearray or an ``array.array``."""

    __slots__ = ()

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if self.holder == self.earlier:
            return False
        self.holder[:] = self.earlier
        return True


class KeptClass(Kept):
    """The class of a module; a lazy one becomes another as it runs."""

    __slots__ = ()

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if type(self.holder) is self.earlier:
            return False
        nn.Module.__setattr__(self.holder, "__class__", self.earlier)
        return True


class KeptScripted(Kept):
    """What a scripted module holds where its compiled code finds it, by name.

    Containers come out of there as copies.
    """

    __slots__ = ()

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 - its type is private to torch
        kind = torch._C.ConcreteModuleType.from_jit_type(compiled._type())
        names = kind.get_attributes()  # type: ignore[attr-defined]
        super().__init__(compiled, {name: compiled.getattr(name) for name in names})

    def restore(self) -> bool:
        """As `Kept.restore`; tensors are compared by identity, other values by their ``repr``."""
        changed = False
        for name, value in self.earlier.items():
            now = self.holder.getattr(name)
            if now is not value and (isinstance(value, torch.Tensor) or repr(now) != repr(value)):
                self.holder.setattr(name, value)
                changed = True
        return changed


class KeptSlot(KeptObject):
    """What an object holds in one of its class's ``__slots__``."""

    __slots__ = ("slot",)

    def __init__(self, slot: types.MemberDescriptorType, owner: object) -> None:
        self.slot = slot
        super().__init__(owner, self._now(owner))

    def _now(self, owner: object) -> Any:  # noqa: ANN401 - whatever stands there
        try:
            return self.slot.__get__(owner, type(owner))
        except AttributeError:
            return MISSING

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if self._now(self.holder) is self.earlier:
            return False
        try:
            if self.earlier is MISSING:
                self.slot.__delete__(self.holder)
            else:
                self.slot.__set__(self.holder, self.earlier)
        except AttributeError:  # one that compiled code alone may write
            return False
        return True


class KeptCell(KeptObject):
    """A variable that a function closes over."""

    __slots__ = ()

    def __init__(self, cell: types.CellType) -> None:
        super().__init__(cell, self._now(cell))

    @staticmethod
    def _now(cell: types.CellType) -> Any:  # noqa: ANN401 - whatever stands there
        try:
            return cell.cell_contents
        except ValueError:
            return MISSING

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if self._now(self.holder) is self.earlier:
            return False
        if self.earlier is MISSING:
            del self.holder.cell_contents
        else:
            self.holder.cell_contents = self.earlier
        return True


class KeptContextVar(KeptObject):
    """The value of a context variable; one that had none gets ``None``: none cannot be set."""

    __slots__ = ()

    def __init__(self, variable: contextvars.ContextVar[Any]) -> None:
        super().__init__(variable, variable.get(None))

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if self.holder.get(None) is self.earlier:
            return False
        self.holder.set(self.earlier)
        return True


class KeptGlobal(KeptObject):
    """A global; ``earlier`` is `MISSING` of one that code may make."""

    __slots__ = ("name",)

    def __init__(self, space: dict[str, Any], name: str) -> None:
        super().__init__(space, space.get(name, MISSING))
        self.name = name

    def restore(self) -> bool:
        """As `Kept.restore`."""
        if self.holder.get(self.name, MISSING) is self.earlier:
            return False
        if self.earlier is MISSING:
            del self.holder[self.name]
        else:
            self.holder[self.name] = self.earlier
        return True


class KeptClassAttributes(Kept):
    """Attributes of a class."""

    __slots__ = ()

    def __init__(self, kind: type) -> None:
        super().__init__(kind, self._now(kind))

    @staticmethod
    def _now(kind: type) -> dict[str, Any]:
        return {name: value for name, value in vars(kind).items() if name not in _OF_EVERY_CLASS}

    def exchange(self, others: Mapping[int, Any]) -> bool:
        """As `Kept.exchange`."""
        values = tuple(self.earlier.values())
        exchanged = _exchanged(values, others)
        self.earlier = dict(zip(self.earlier, exchanged, strict=True))
        return exchanged is not values

    def restore(self) -> bool:
        """As `Kept.restore`."""
        now = self._now(self.holder)
        changed = [name for name, value in self.earlier.items() if now.get(name) is not value]
        added = [name for name in now if name not in self.earlier]
        for name in changed:
            type.__setattr__(self.holder, name, self.earlier[name])
        for name in added:
            type.__delattr__(self.holder, name)
        return bool(changed or added)


class KeptDraws(Kept):
    """A generator of random numbers.

    Args:
        state: of the generator now.
        put_back: takes that state.
    """

    __slots__ = ()

    def __init__(self, state: object, put_back: Callable[[Any], object]) -> None:
        super().__init__(put_back, state)

    def restore(self) -> bool:
        """Put the state back; to compare costs more, so that nothing counts as changed."""
        self.holder(self.earlier)
        return False
