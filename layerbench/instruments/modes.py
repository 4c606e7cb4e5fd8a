"""Modes that observe a model's operators, and go off where compiled code runs.

Modes lie on stacks that the model's own code uses, too. What Dynamo has compiled it compiles again
under another mode, or it fails; so ours go out of the way of what is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import overrides
from torch.overrides import TorchFunctionMode
from torch.utils import _python_dispatch as dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from layerbench.instruments.autocast_seen import as_called, autocast_noted
from layerbench.instruments.compiled import entry_noticed

AS_IT_GOES = "the forward runs code that torch.compile makes as it goes"
"""Why what a mode sees of a forward is not all."""


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode whose `operator` runs each operator that comes by, or answers instead."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload; its type is private to torch
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        with as_called(func):
            return self.operator(func, args, kwargs or {})

    def operator(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        """Give what the operator gives."""
        raise NotImplementedError


class Observing:
    """Keeps a dispatch mode on while a forward of a user's own runs.

    Attributes:
        unseen: why it went off before the forward's end; empty if it did not.

    Args:
        mode: sees operators.
        beneath: whether it lies beneath all others that are on, whose owners may take theirs off
            before it goes.
    """

    def __init__(self, mode: TorchDispatchMode, *, beneath: bool = False) -> None:
        self._mode = mode
        self._beneath = beneath
        self.unseen = ""

    @contextmanager
    def on(self) -> Iterator[None]:
        """The mode on for the duration of a ``with`` block; off for good where compiled code runs.

        It lies on the stack without being entered: what PyTorch notes of modes that are entered
        would be wrong after one has gone from under another.
        """
        self._put_on()
        try:
            with entry_noticed(self._compiled_code_begins), autocast_noted():
                yield
        finally:
            self._take_off()

    def _put_on(self) -> None:
        others = len(dispatch._get_current_dispatch_mode_stack()) if self._beneath else 0
        over = [dispatch._pop_mode() for _ in range(others)]
        for mode in (self._mode, *reversed(over)):
            dispatch._push_mode(mode)

    def _compiled_code_begins(self, _: object) -> None:
        if self._take_off():
            self.unseen = AS_IT_GOES

    def _take_off(self) -> bool:
        """Take the mode off, whatever lies over it; whether it was on."""
        if not any(mode is self._mode for mode in dispatch._get_current_dispatch_mode_stack()):
            return False
        over = []
        while (mode := dispatch._pop_mode()) is not self._mode:
            over.append(mode)
        for mode in reversed(over):
            dispatch._push_mode(mode)
        return True


class ModeSwitch:
    """Keeps a function mode on while a forward runs, or a dispatch mode in its place.

    Args:
        functions: sees functions by the names that their author wrote.
        operators: sees operators; ``None`` for who never puts it on.

    Attributes:
        unseen: why the function mode went off for good before the forward's end; empty if it
            did not.
    """

    def __init__(
        self, functions: TorchFunctionMode, operators: TorchDispatchMode | None = None
    ) -> None:
        self._functions = functions
        self._operators = operators
        self._operators_on = False
        self.unseen = ""

    @contextmanager
    def on(self) -> Iterator[None]:
        """The function mode on for the duration of a ``with`` block."""
        self.unseen = ""
        self._put_on()
        try:
            with entry_noticed(self._compiled_code_begins):
                yield
        finally:
            self._take_off()

    @contextmanager
    def operators(self) -> Iterator[None]:
        """The dispatch mode on instead, unless a mode of the model's own lies over ours."""
        if self._operators is None or self._operators_on or not self._is_on_top():
            yield
            return
        self._take_off()
        self._operators.__enter__()  # type: ignore[no-untyped-call]
        self._operators_on = True
        try:
            with autocast_noted():
                yield
        finally:
            self._leave_operators()
            if not self.unseen:
                self._put_on()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Neither on: what runs in the ``with`` block is compiled."""
        if not self._is_on_top():
            self._compiled_code_begins()
            yield
            return
        self._take_off()
        try:
            yield
        finally:
            self._put_on()

    def _compiled_code_begins(self, _: object = None) -> None:
        if self._operators_on:
            if dispatch._get_current_dispatch_mode() is not self._operators:
                return
            self._leave_operators()
        elif not self._take_off():
            return
        self.unseen = AS_IT_GOES

    def _leave_operators(self) -> None:
        if self._operators_on and self._operators is not None:
            self._operators_on = False
            self._operators.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _is_on_top(self) -> bool:
        return overrides._get_current_function_mode() is self._functions  # type: ignore[no-untyped-call]

    def _put_on(self) -> None:
        overrides._push_mode(self._functions)  # type: ignore[no-untyped-call]

    def _take_off(self) -> bool:
        """Take the function mode off, whatever lies over it; whether it was on."""
        stack = overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if not any(mode is self._functions for mode in stack):
            return False
        over = []
        while (mode := overrides._pop_mode()) is not self._functions:  # type: ignore[no-untyped-call]
            over.append(mode)
        for mode in reversed(over):
            overrides._push_mode(mode)  # type: ignore[no-untyped-call]
        return True
