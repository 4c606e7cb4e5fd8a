"""The line of the user's own code at which an error arose. Loads no torch."""

from __future__ import annotations

import linecache
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from layerbench.errors import LayerbenchError

_HERE = Path(__file__).resolve().parents[1]
# Folders of libraries of any environment: one may take what it lacks from another.
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def origin(error: BaseException) -> str | None:
    """The innermost line of the user's code that led to an error, or to what caused it.

    Returns:
        such as ``net.py:12 in forward``; ``None`` if no frame is the user's.
    """
    causes = list(_causes(error))
    if isinstance(causes[-1], LayerbenchError):
        return None  # its message is complete
    for cause in reversed(causes):
        lines = [
            (frame.f_code.co_filename, line, frame.f_code.co_name)
            for frame, line in traceback.walk_tb(cause.__traceback__)
            if _is_users(frame.f_code.co_filename)
        ]
        if lines:
            file, line, function = lines[-1]
            inside = "" if function == "<module>" else f" in {function}"
            return f"{_shown(file)}:{line}{inside}"
    return None


def explained(error: BaseException) -> str:
    """An error's message on one line, with `origin` unless the message has it."""
    text = " ".join(str(error).split()) or type(error).__name__
    where = origin(error)
    return text if where is None or where in text else f"{text} ({where})"


def raised_here(error: BaseException) -> bool:
    """Whether layerbench's own code raised an error, or imported what could not be imported."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [file for file in files if not file.startswith("<frozen importlib")]
    return not own or _is_own(own[-1])


def leave_out_own_calls(error: BaseException) -> None:
    """Take layerbench's own calls out of the tracebacks of an error and of what caused it."""
    for one in _causes(error):
        calls = [*_calls(one.__traceback__)]
        own = [_is_own(call.tb_frame.f_code.co_filename) for call in calls]
        # Of what is raised here, the calls in between are of no use either.
        end = own.index(True) if own and own[-1] else len(own)
        shown: TracebackType | None = None
        for at in reversed(range(end)):
            if not own[at]:
                call = calls[at]
                shown = TracebackType(shown, call.tb_frame, call.tb_lasti, call.tb_lineno)
        one.__traceback__ = shown


def _is_own(file: str) -> bool:
    return _HERE in Path(os.path.realpath(file)).parents


def _calls(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def innermost(tb: TracebackType | None) -> str:
    """The line that raised, also in a library."""
    frames = list(traceback.walk_tb(tb))
    if not frames:
        return "an unknown place"
    frame, line = frames[-1]
    return f"{_shown(frame.f_code.co_filename)}:{line}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, and so on."""
    visited: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in visited:
        visited.add(id(following))
        yield following
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)


def _is_users(file: str) -> bool:
    if file.startswith("<") or not linecache.getline(file, 1):
        return False  # generated code, or a missing file
    path = os.path.realpath(file)
    # A package may be a link to a store of packages.
    installed = not _INSTALLED.isdisjoint((*file.split(os.sep), *path.split(os.sep)))
    return not installed and not any(path.startswith(library) for library in _libraries())


def _libraries() -> list[str]:
    """Folders of libraries, layerbench's among them, each with a separator at its end."""
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages(), str(_HERE)]
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    named += [os.path.dirname(torch)] if torch else []
    return [os.path.realpath(folder) + os.sep for folder in named if folder]


def _shown(file: str) -> str:
    """The path, from the working directory if the file is in it."""
    path = Path(os.path.realpath(file))
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
