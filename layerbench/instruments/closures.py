"""Functions with the tensors that they close over as arguments, as `torch.compile` makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch._guards import active_fake_mode
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from layerbench.instruments.operators import run_seen

Function = Callable[..., Any]

# An older PyTorch, such as 2.4, knows the mode by its other name alone.
_proxy_mode: Callable[[], object | None] = (
    getattr(proxy_tensor, "get_proxy_mode", None) or proxy_tensor.get_innermost_proxy_mode
)

_stood_for: ContextVar[int] = ContextVar("calls that one stands for", default=1)


def calls_stood_for() -> int:
    """How many calls of a module one call stands for; 0 where its function is only looked at."""
    return _stood_for.get()


def closed_over(
    functions: Sequence[Function], operands: Sequence[Any], args: Function, calls: int
) -> list[torch.Tensor]:
    """Tensors that functions use, and neither get as arguments nor make.

    The functions run once on tensors without memory. Nothing outside sees the operators.

    Args:
        functions: which all take the same arguments.
        operands: of the operator that runs them, any nest of tensors.
        args: makes of them, without memory, the functions' arguments.
        calls: how many calls of modules each call in the functions stands for.

    Raises:
        Exception: a function looks at values, or at a tensor in a way that PyTorch does not tell.
    """
    watch = _Watch(_mode_of(operands) or active_fake_mode() or FakeTensorMode())
    with _disable_current_modes(), watch.mode, torch.no_grad(), standing_for(calls):
        stand_ins = args(*tree_map(watch.copy, operands))
        for leaf in tree_leaves(stand_ins):
            watch.note(leaf, leaf)
        with watch:
            for function in functions:
                function(*stand_ins)
    return watch.outside


def _mode_of(operands: Sequence[Any]) -> FakeTensorMode | None:
    modes = (leaf.fake_mode for leaf in tree_leaves(operands) if isinstance(leaf, FakeTensor))
    return next(modes, None)


def with_closures(function: Function, closures: Sequence[torch.Tensor]) -> Function:
    """The function, which takes what stands in for its closures as its last arguments."""
    count = len(closures)

    # It does not say what it wraps: a tracer would count that one's arguments.
    def lifted(*args: Any) -> Any:  # noqa: ANN401 - whatever the function returns
        own = len(args) - count
        stand_ins = {
            id(closure): stand_in for closure, stand_in in zip(closures, args[own:], strict=True)
        }
        with _Exchange(stand_ins), _unseen_if_traced():
            return function(*args[:own])

    return lifted


@contextmanager
def standing_for(calls: int) -> Iterator[None]:
    """Let each call of a module stand for so many times as many, while a ``with`` block runs."""
    token = _stood_for.set(_stood_for.get() * calls)
    try:
        yield
    finally:
        _stood_for.reset(token)


def _unseen_if_traced() -> AbstractContextManager[None]:
    return nullcontext() if _proxy_mode() is None else standing_for(0)


class _Exchange(TorchFunctionMode):
    """Puts a stand-in in the place of each of some tensors, wherever a function takes it."""

    def __init__(self, stand_ins: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self._stand_ins = stand_ins

    def of(self, value: Any) -> Any:  # noqa: ANN401 - any argument
        """What a function gets in the place of a value."""
        return self._stand_ins.get(id(value), value)

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - a function of PyTorch's
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        del types
        exchanged, named = tree_map(self.of, (tuple(args), dict(kwargs or {})))
        if isinstance(func, HigherOrderOperator):
            return run_seen(func, exchanged, named, self)
        return func(*exchanged, **named)


class _Watch(_Exchange):
    """Sees which tensors come from outside, and has tensors without memory stand in for them.

    Args:
        mode: of the tensors without memory.

    Attributes:
        outside: those tensors.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._of: dict[int, Any] = {}
        super().__init__(self._of)
        self.mode = mode
        self.outside: list[torch.Tensor] = []
        self._kept: list[Any] = []  # as long as they live, no other has their identity

    def copy(self, value: Any) -> Any:  # noqa: ANN401 - any argument
        """What stands in for an argument: another tensor than one that is closed over."""
        if not isinstance(value, torch.Tensor):
            return value
        return self._without_memory(value).detach()

    def note(self, tensor: Any, stand_in: Any) -> None:  # noqa: ANN401 - anything returned
        """Say what stands in for a tensor from now on."""
        if isinstance(tensor, torch.Tensor):
            self._of[id(tensor)] = stand_in
            self._kept.append(tensor)

    def of(self, value: Any) -> Any:  # noqa: ANN401 - as that of the class above
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._of:
            self.outside.append(value)
            self.note(value, self._without_memory(value))
        return self._of[id(value)]

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - as that of the class above
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as that of the class above
        output = super().__torch_function__(func, types, args, kwargs)
        for leaf in tree_leaves(output):
            self.note(leaf, leaf)
        return output

    def _without_memory(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self.mode.from_tensor(tensor)
