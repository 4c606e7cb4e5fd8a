"""The end of a command that raised: one line for the user, and an exit status."""

from __future__ import annotations

import traceback
from contextvars import ContextVar
from typing import Any

import typer
from pydantic import ValidationError

from layerbench.cli._generated import called
from layerbench.cli._output import complain, lost
from layerbench.environment.extras import advice_if_lacking
from layerbench.environment.origins import explained, innermost, origin
from layerbench.errors import LayerbenchError
from layerbench.records.options import complaint

INTERRUPTED = 130
FAILED = 2

_wanted: ContextVar[bool] = ContextVar("whether tracebacks are shown", default=False)


class Interrupted(Exception):
    """Somebody interrupted a verb. typer would end it without a word."""


def tracebacks_wanted(wanted: bool) -> None:
    """Say whether `end` shows the calls that led to an error."""
    _wanted.set(wanted)


def end(error: BaseException) -> Any:  # noqa: ANN401 - whatever `sys.exit` takes
    """Tell of an error on standard error.

    Returns:
        the status to leave with.
    """
    if isinstance(error, (Interrupted, KeyboardInterrupt, typer.Abort)):
        complain("interrupted: what was being written is whole or as it was")
        return INTERRUPTED
    # typer brings its own copy of click, so usage errors are known by what they can do.
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if code is not None:
        if isinstance(error.__cause__, ValidationError):
            complain(f"error: {_unreadable(error, error.__cause__)}")
        elif show is not None:
            show()
        return code
    if isinstance(error, SystemExit) and origin(error) is None:
        return error.code
    status = lost(error)
    if status is not None:
        return status
    return failed(error)


def failed(error: BaseException, what: str = "") -> int:
    """Tell of an error that ends nothing but one of several things.

    Args:
        error: that it ended with.
        what: it is; empty where it is all.

    Returns:
        the status to leave with.
    """
    if _wanted.get():
        traceback.print_exception(error)
    told = _told(error)
    named = not what or f"{what}:" in told
    complain(f"error: {told}" if named else f"error: {what}: {told}")
    return error.exit_status if isinstance(error, LayerbenchError) else FAILED


def _unreadable(error: Any, cause: ValidationError) -> str:  # noqa: ANN401 - typer's own click
    """What typer could not read, in the words that the models' own checks have."""
    return complaint(cause, lambda _: called(error.ctx, error.param))


def _told(error: BaseException) -> str:
    if lacking := advice_if_lacking(error):
        return lacking
    text = explained(error)
    if isinstance(error, LayerbenchError):
        more = origin(error) is not None
    else:
        more = True
        text = _unexpected(error, text)
    return f"{text}; --traceback shows all" if more and not _wanted.get() else text


def _unexpected(error: BaseException, text: str) -> str:
    """What no part of layerbench has made a message of."""
    if isinstance(error, SystemExit):
        return f"the model's code called sys.exit({error.code!r}) ({origin(error)})"
    kind = type(error).__name__
    said = text if text.startswith(kind) else f"{kind}: {text}"
    return said if origin(error) else f"{said} (in {innermost(error.__traceback__)})"
