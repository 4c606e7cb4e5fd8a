"""Functions of modules, classes and objects, replaced for a while, one over the other.

Two loops in one program begin and end as they want. So whoever goes first need not lie on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Function = Callable[..., Any]

_MISSING: Any = object()
_LAYERS: list[Layer] = []


@dataclass(eq=False)
class Layer:
    """A function that lies over another one.

    Attributes:
        beneath: what it stands for: the owner's own function, or what lies over that by now.
    """

    owner: Any
    name: str
    beneath: Function
    _before: Any = field(default=_MISSING, repr=False)
    _mine: Function | None = field(default=None, repr=False)

    def _lies_on(self, other: Layer) -> bool:
        return (
            self.owner is other.owner
            and self.name == other.name
            and self._before is other._mine
            and self is not other
        )


@contextmanager
def function_replaced(
    owner: Any,  # noqa: ANN401 - a module, a class or an object
    name: str,
    make: Callable[[Layer], Function],
) -> Iterator[None]:
    """Replace a function for the duration of a ``with`` block, which may end in any order.

    What somebody else puts over it meanwhile stays, with ours beneath: so ours must do nothing of
    its own any more once the block has ended.

    Args:
        owner: in whose ``__dict__`` the replacement is put.
        name: of the function.
        make: makes the replacement, which calls the layer's ``beneath`` in place of the function.
    """
    layer = Layer(owner, name, getattr(owner, name), vars(owner).get(name, _MISSING))
    layer._mine = make(layer)
    setattr(owner, name, layer._mine)
    _LAYERS.append(layer)
    try:
        yield
    finally:
        _LAYERS.remove(layer)
        above = next((one for one in _LAYERS if one._lies_on(layer)), None)
        if above is not None:
            above.beneath, above._before = layer.beneath, layer._before
        elif vars(owner).get(name, _MISSING) is layer._mine:
            if layer._before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, layer._before)
