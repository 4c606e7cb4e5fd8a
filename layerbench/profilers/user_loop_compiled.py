"""Functions compiled by `torch.compile` that call the model from outside, in its user's own loop.

Dynamo would compile such a function again, as it sees that modules' ``forward`` was replaced. So
nothing of ours lies over the model while one runs; and nothing there calls a layer in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from layerbench.errors import UsageError
from layerbench.instruments.compiled import around_compiled, is_compiled
from layerbench.instruments.overlay import lifted_off
from layerbench.introspection.modules import modules

FORWARDS = "forwards in compiled functions"
"""In `LiveLayers.absent`: calls of the model that nothing shows."""
LATER = "later forwards"
"""In `LiveLayers.absent`: why those at the end of the loop are not among the figures."""
UNSEEN = (
    "which torch.compile compiled: nothing calls its layers in Python there. "
    "Call the model outside, or compile the model itself"
)


OF_IT = "the model ran as what torch.compile made of it: give that in its place"


class CompiledOutside:
    """Steps aside while a compiled function runs that may call the model.

    Args:
        model: what is timed.
        is_inside: whether a forward of it is running, in which other rules hold.
    """

    def __init__(self, model: nn.Module, is_inside: Callable[[], bool]) -> None:
        self._model = model
        self._is_inside = is_inside
        self._calls: dict[str, int] = {}
        self._leads_to_it = self._is_of_it = False

    def noticed(self) -> AbstractContextManager[None]:
        """Step aside for the duration of a ``with`` block."""
        return around_compiled(self._around)

    @contextmanager
    def _around(self, function: Any, given: list[nn.Module]) -> Iterator[None]:  # noqa: ANN401
        if self._is_inside():
            # What of ours lies over a model that is compiled as a whole, compiled code may look at.
            with lifted_off([self._model] if is_compiled(self._model) else []):
                yield
            return
        self._is_of_it = self._is_of_it or getattr(function, "__self__", None) is self._model
        own = list(modules(self._model))
        name = getattr(function, "__qualname__", type(function).__name__)
        self._calls[name] = self._calls.get(name, 0) + 1
        self._leads_to_it = self._leads_to_it or bool(set(map(id, own)) & set(map(id, given)))
        with lifted_off(own):
            yield

    def absent(self, forwards: int) -> dict[str, str]:
        """What was not seen, and why, if compiled functions ran.

        Args:
            forwards: of the model that were seen.
        """
        if not self._calls or (forwards and not self._leads_to_it):
            return {}
        if self._is_of_it:
            return {FORWARDS: OF_IT}
        ran = "ran" if self._leads_to_it else "may have run"
        return {FORWARDS: f"the model {ran} inside {', '.join(self._calls)}, {UNSEEN}"}

    def no_forward(self, otherwise: str = "run it inside the block") -> UsageError:
        """Where no forward was seen at all.

        Args:
            otherwise: what to do where no compiled function hides it.
        """
        why = self.absent(0).get(FORWARDS, otherwise)
        return UsageError(f"no forward of the model has ended yet: {why}")
