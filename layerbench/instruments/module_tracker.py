"""Which module is running now: in the forward by its calls, in the backward by autograd's nodes.

Full-backward hooks raise on in-place layers, so none are used. Autograd numbers the nodes of its
graph in the order in which the forward makes them (`torch.autograd.graph.Node._sequence_nr`):
the numbers drawn while a module runs are its own, and a node that runs in the backward is
looked up by its number. Gradient accumulation has no number; it belongs to the parameter's owner.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]

from layerbench.instruments.calls import NOWHERE, CallTree, Names
from layerbench.introspection.modules import named_modules, own_parameters
from layerbench.records.tree import parent

OUTSIDE = None
"""What `RunningModule` says outside the model: in the loss, in the optimizer."""

# A node that accumulates a gradient carries the largest number there is.
_NO_SEQUENCE = 2**63


class _InThread(threading.local):
    """What each thread has of its own: autograd counts in each thread by itself, too."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.numbers: list[int] = []
        self.places: list[int | None] = []


class RunningModule:
    """Tracks which module is running, and its caller.

    `entered` and `left` are called around every module's forward by whoever sees the calls
    (`layerbench.instruments.modules.CallObserver`).

    Args:
        model: whose parameters' owners are to be known in the backward.

    Attributes:
        calls: the calls so far; `place` gives its nodes.

    Known limitations: nodes that a custom `torch.autograd.Function` makes in the backward. Nodes
    that were made in a thread of the forward's own may be taken for another module's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls = CallTree(Names(named_modules(model, remove_duplicate=False)))
        self._here = _InThread()
        self._of_parameter = {
            id(parameter): path
            for path, module in named_modules(model)
            for parameter in own_parameters(module)
        }

    def entered(self, path: str) -> None:
        """A module's forward begins."""
        around = self._here.stack[-1] if self._here.stack else self._around(path)
        self._here.stack.append(self.calls.call(around, path))
        self._note()

    def left(self) -> None:
        """The innermost module's forward ends, whether it returned or raised."""
        self._here.stack.pop()
        self._note()

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """`entered` and `left` around a block."""
        self.entered(path)
        try:
            yield
        finally:
            self.left()

    @contextmanager
    def again(self, place: int | None) -> Iterator[None]:
        """Let what runs in the block belong to this call once more; to what runs where ``None``."""
        if place is None:
            yield
            return
        self._here.stack.append(place)
        self._note()
        try:
            yield
        finally:
            self.left()

    def stack(self) -> tuple[int, ...]:
        """Nodes of the calls running in this thread, outermost first."""
        return tuple(self._here.stack)

    @contextmanager
    def within(self, calls: Sequence[int]) -> Iterator[None]:
        """Let a thread in which nothing runs yet run within these calls."""
        stack = self._here.stack
        begun = not stack
        if begun:
            stack.extend(calls)
        try:
            yield
        finally:
            if begun:
                stack.clear()

    def forget(self) -> None:
        """Forget the nodes of an earlier graph."""
        self._here.numbers.clear()
        self._here.places.clear()

    def path(self) -> str | None:
        """The innermost module running, or whose backward is running; ``None`` outside all."""
        place = self.place()
        return OUTSIDE if place is None else self.calls.paths[place]

    def place(self) -> int | None:
        """As `path`, its node in `calls`."""
        if self._here.stack:
            return self._here.stack[-1]
        node = torch._C._current_autograd_node()
        return OUTSIDE if node is None else self._of_node(node)

    def path_of(self, node: torch.autograd.graph.Node) -> str | None:
        """The module that a node of the last forward's graph belongs to, as `path` has it."""
        place = self._of_node(node)
        return OUTSIDE if place is None else self.calls.paths[place]

    def _around(self, path: str) -> int:
        """Where a call belongs that no call is around: the model's, or one in the backward.

        Activation checkpointing runs a module again when a node asks for what it made: within the
        calls that node was made in, as far as the module lies below them.
        """
        if not path:
            return NOWHERE
        asking = self.place()
        around = NOWHERE if asking is None else self.calls.around(asking, path)
        return self.calls.home(parent(path)) if around == NOWHERE else around

    def _note(self) -> None:
        number = _get_sequence_nr()
        place = self._here.stack[-1] if self._here.stack else OUTSIDE
        if self._here.numbers and self._here.numbers[-1] == number:
            self._here.places[-1] = place
        else:
            self._here.numbers.append(number)
            self._here.places.append(place)

    def _of_node(self, node: torch.autograd.graph.Node) -> int | None:
        number = node._sequence_nr()
        if number >= _NO_SEQUENCE:
            owner = self._of_parameter.get(id(getattr(node, "variable", None)))
            return OUTSIDE if owner is None else self.calls.home(owner)
        at = bisect_right(self._here.numbers, number) - 1
        return self._here.places[at] if at >= 0 else OUTSIDE
