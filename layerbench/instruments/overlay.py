"""Temporary attributes of one module, and the original ones beneath them.

Instruments write into a module's ``__dict__``, which copies, pickles and ``torch.save`` read. So
the instance also gets the methods through which it is copied, and these see what is beneath: a
copy made meanwhile has nothing of ours, and runs its own weights (docs/decisions/0018).
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

_MISSING: Any = object()

# The state for copy.copy, copy.deepcopy and pickle; all three look it up on the instance.
STATE = "__getstate__"
# A class's own ways to be copied, of which an instance's comes first.
_COPYING = ("__deepcopy__", "__reduce_ex__")
# What else a user's loop may do to a module that reads its ``__dict__``: `torch.nn.Module.compile`,
# `torch.nn.DataParallel` and `torch.jit.script`.
_BUILDING = ("compile", "_replicate_for_data_parallel", "__prepare_scriptable__")


class Overlay:
    """Covers attributes of one module instance; what the user does to them meanwhile stays.

    Several instruments can cover one attribute: the last one counts, and each can go at any time,
    in any order. Where the user has set an attribute over ours, or deleted it, that is left alone.

    Args:
        module: whose ``__dict__`` is written directly: a class that overrides ``__setattr__`` must
            not notice.
        open_to_user: whether code of the user's own runs meanwhile, outside the model's forward.
        classes: which ways to copy classes have of their own; who covers many modules at once
            hands over one table for all.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        open_to_user: bool = False,
        classes: dict[type, tuple[str, ...]] | None = None,
    ) -> None:
        self._module = module
        self._open = open_to_user
        self._classes = {} if classes is None else classes
        self._beneath: dict[str, object] = {}
        self._over: dict[str, list[object]] = {}
        self._ways = self._ways_to_copy()

    @classmethod
    def of(cls, module: nn.Module, *, open_to_user: bool = False) -> Overlay:
        """The one that lies over the module now, or a new one."""
        there = module.__dict__.get(STATE)
        overlay = there.overlay() if isinstance(there, _Beneath) else None
        if overlay is not None and overlay._module is module:
            return overlay
        return cls(module, open_to_user=open_to_user)

    def _ways_to_copy(self) -> dict[str, object]:
        kind, own = type(self._module), self._module.__dict__
        of_class = self._classes.get(kind)
        if of_class is None:
            of_class = tuple(name for name in _COPYING if _is_of_its_own(kind, name))
            self._classes[kind] = of_class
        names = [STATE]
        names += [name for name in _COPYING if name in own or name in of_class]
        if self._open:
            names += [name for name in _BUILDING if name not in own]
        return {name: _Beneath(self, name) for name in names}

    def cover(self, values: Mapping[str, object]) -> None:
        """Put other values over attributes."""
        if self._over:
            self._put(values)
            return
        # The usual case, in one go: a model can have tens of thousands of modules.
        attributes = self._module.__dict__
        both = {**self._ways, **values}
        self._beneath = {name: attributes.get(name, _MISSING) for name in both}
        self._over = {name: [value] for name, value in both.items()}
        attributes.update(both)

    def uncover(self, values: Mapping[str, object]) -> None:
        """Take away what `cover` put there."""
        if self._lies_alone(values):
            self._take_all()
            if self._open:
                self._clear_from_copies(values)
            return
        self._take(values)
        if len(self._over) == len(self._ways):
            self._take(self._ways)
            self._over.clear()
            self._beneath.clear()
            if self._open:
                self._clear_from_copies(values)

    def _lies_alone(self, values: Mapping[str, object]) -> bool:
        """Whether these, and the ways to copy, are all that lies over the module."""
        if len(self._over) != len(self._ways) + len(values):
            return False
        for name, value in values.items():
            over = self._over.get(name)
            if over is None or len(over) != 1 or over[0] is not value:
                return False
        return True

    def _take_all(self) -> None:
        """As `_take`, for an overlay without other users."""
        attributes = self._module.__dict__
        for name, over in self._over.items():
            if attributes.get(name, _MISSING) is over[0]:
                _write(attributes, name, self._beneath[name])
        self._over.clear()
        self._beneath.clear()

    def _put(self, values: Mapping[str, object]) -> None:
        attributes = self._module.__dict__
        for name, value in values.items():
            now = attributes.get(name, _MISSING)
            over = self._over.get(name)
            if over is None or now is not over[-1]:
                # The user's own: also where it has come to lie over something of ours.
                self._beneath[name] = now
                self._over[name] = [value]
            else:
                over.append(value)
            attributes[name] = value

    def _take(self, values: Mapping[str, object]) -> None:
        attributes = self._module.__dict__
        for name, value in values.items():
            over = self._over.get(name)
            if over is None:
                continue
            at = 0 if over[0] is value else _index(over, value)
            if at is None:
                continue
            is_on_top = attributes.get(name, _MISSING) is value
            del over[at]
            now = over[-1] if over else self._beneath[name]
            if not over:
                del self._over[name], self._beneath[name]
            if is_on_top:
                _write(attributes, name, now)

    @staticmethod
    def give_up(module: nn.Module) -> None:
        """Take away whatever of ours lies over a module; those who put it there need not know."""
        there = module.__dict__.get(STATE)
        overlay = there.overlay() if isinstance(there, _Beneath) else None
        if overlay is None:
            return
        for name, over in overlay._over.items():
            if module.__dict__.get(name, _MISSING) is over[-1]:
                _write(module.__dict__, name, overlay._beneath[name])

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """The module as its user made it, for the duration of a ``with`` block."""
        attributes = self._module.__dict__
        lifted = {
            name: over[-1]
            for name, over in self._over.items()
            if attributes.get(name, _MISSING) is over[-1]
        }
        for name in lifted:
            _write(attributes, name, self._beneath[name])
        try:
            yield
        finally:
            for name, value in lifted.items():
                self._lay_again(name, value)

    def _lay_again(self, name: str, value: object) -> None:
        """After a block in which it was lifted; what was set in the block is the user's."""
        attributes = self._module.__dict__
        as_lifted = attributes.get(name, _MISSING) is self._beneath.get(name, _MISSING)
        if as_lifted and _index(self._over.get(name), value) is not None:
            attributes[name] = value

    def beneath(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call one of the module's methods while nothing lies over it."""
        if name == "compile":
            for tell in list(_TOLD):
                tell(self._module)
        with self.lifted():
            if name == "__prepare_scriptable__":
                return self._to_script()
            method = getattr(self._module, name, None)
            if method is None:  # Python 3.10 has no object.__getstate__
                return dict(self._module.__dict__)
            return self._not_live(method(*args, **kwargs))

    def _not_live(self, state: Any, depth: int = 3) -> Any:  # noqa: ANN401 - any state
        """A state that holds the ``__dict__`` itself would have ours in it again."""
        attributes = self._module.__dict__
        if state is attributes:
            return dict(attributes)
        if depth and type(state) in (tuple, list):
            return type(state)(self._not_live(part, depth - 1) for part in state)
        return state

    def _to_script(self) -> nn.Module:
        """What `torch.jit.script` compiles: the same tensors in a module with nothing of ours."""
        prepare = getattr(self._module, "__prepare_scriptable__", None)
        if prepare is not None:
            made: nn.Module = prepare()
            return made
        twin = type(self._module).__new__(type(self._module))
        twin.__dict__.update(self._module.__dict__)
        twin.__dict__["_modules"] = self._module._modules.copy()
        return twin

    def _clear_from_copies(self, values: Mapping[str, object]) -> None:
        """Where somebody has copied the ``__dict__`` by hand, ours goes from there too."""
        state = self._ways[STATE]
        if sys.getrefcount(state) <= _EXPECTED_REFERENCES:
            return
        for holder in gc.get_referrers(state):
            attributes = holder.__dict__ if isinstance(holder, nn.Module) else holder
            if isinstance(attributes, dict) and attributes is not self._ways:
                for name, value in {**self._ways, **values}.items():
                    if attributes.get(name, _MISSING) is value:
                        del attributes[name]


@contextmanager
def lifted_off(there: Iterable[nn.Module]) -> Iterator[None]:
    """Modules run as their user made them, for the duration of a ``with`` block.

    What lies over their ways to be copied stays. For a call of a model that takes little time.
    """
    lifted: list[tuple[Overlay, str, object]] = []
    for module in there:
        attributes = module.__dict__
        state = attributes.get(STATE)
        overlay = state.overlay() if type(state) is _Beneath else None
        if overlay is None or overlay._module is not module:
            continue
        for name, over in overlay._over.items():
            if name not in overlay._ways and attributes.get(name, _MISSING) is over[-1]:
                lifted.append((overlay, name, over[-1]))
                _write(attributes, name, overlay._beneath[name])
    try:
        yield
    finally:
        for overlay, name, value in lifted:
            overlay._lay_again(name, value)


_TOLD: list[Callable[[nn.Module], None]] = []


@contextmanager
def compilation_told(tell: Callable[[nn.Module], None]) -> Iterator[None]:
    """Say which covered modules are being compiled in place, while a ``with`` block runs."""
    _TOLD.append(tell)
    try:
        yield
    finally:
        _TOLD.remove(tell)


class _Beneath:
    """A method of a module that does not see what lies over it."""

    def __init__(self, overlay: Overlay, name: str) -> None:
        # Weak: a cycle would keep the model's memory until the next collection of garbage.
        self.overlay = weakref.ref(overlay)
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method does
        overlay = self.overlay()
        assert overlay is not None
        return overlay.beneath(self._name, args, kwargs)


def _expected_references() -> int:
    """Of what only the overlay's own table holds, as a function counts them.

    Names of a function and arguments count up to Python 3.13, and not from 3.14 on.
    """
    table = {STATE: object()}
    state = table[STATE]
    return sys.getrefcount(state)


_EXPECTED_REFERENCES = _expected_references()


def _is_of_its_own(kind: type, name: str) -> bool:
    if name == "__reduce_ex__":
        ways = ("__reduce_ex__", "__reduce__")
        return any(getattr(kind, way) is not getattr(object, way) for way in ways)
    return hasattr(kind, name)


def _index(values: list[object] | None, value: object) -> int | None:
    """By identity: what users put there may define ``==``."""
    return next((at for at, one in enumerate(values or ()) if one is value), None)


def _write(attributes: dict[str, Any], name: str, value: object) -> None:
    if value is _MISSING:
        attributes.pop(name, None)
    else:
        attributes[name] = value
