"""The exception tree: everything layerbench raises on purpose.

::

    LayerbenchError                 one clear line, exit status 2
    ├── UsageError                  an argument that makes no sense
    │   ├── UnknownModel            no such model (with close matches)
    │   ├── ModelImportError        a callable that cannot be imported or called
    │   ├── BadInput                an input name or shape that cannot be read
    │   └── DeviceUnavailable       no such device on this machine
    ├── ModelRunError               the model does not take this input (says where)
    │   └── NotAClassifier          what is for classifiers only cannot take the model
    ├── NotTraceable                only a real run shows what the model does
    ├── NotEnoughMemory             says what was requested and what is free
    ├── DataError                   a data set that is missing, or damaged
    ├── TrainingStopped             a training that cannot continue: a loss that is no number
    ├── OutputError                 a report cannot be written there
    ├── RecordError                 a file that is no (valid) record
    ├── ComparisonError             two measurements that are not of the same work
    ├── ServiceError                the estimation service cannot be reached
    ├── WorkerError                 a measuring process died or gave no result
    └── UntrustedError              ``--strict``: a busy machine, an unstable verdict; status 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TypeVar

from layerbench.text import one_line

# The beginning of TorchScript's errors, and the longest first line.
_EXPLAINED = "Explanation: "
_IN_SCRIPT = "The following operation failed in the TorchScript interpreter"
_LONG = 240
# What stands before this in PyTorch's own failed checks is their source code.
_ADVICE = "please report a bug to PyTorch."

Found = TypeVar("Found")
Number = TypeVar("Number", int, float)


def message_of(error: BaseException) -> str:
    """An error's message; empty if its class cannot give it."""
    try:
        return str(error).strip()
    except Exception:
        return ""


class LayerbenchError(Exception):
    """Base of all errors a user can act on. ``str(error)`` is one line."""

    exit_status: int = 2

    def __str__(self) -> str:
        """On one line, with control characters written out."""
        text = super().__str__()
        return text if text.isprintable() else one_line(text)


class UsageError(LayerbenchError):
    """An argument that makes no sense, such as a non-positive count."""


class UnknownModel(UsageError, ValueError):
    """No family of the zoo knows this model name."""


class ModelImportError(UsageError):
    """A user's callable cannot be imported, called, or returns no module."""


class BadInput(UsageError):
    """An input name or shape that cannot be read."""


class DeviceUnavailable(UsageError):
    """The requested device is not on this machine."""


class ModelRunError(LayerbenchError):
    """The model raised on this input; the message names the layer and its input."""


class NotAClassifier(ModelRunError):
    """The model gives no logits for images, or has no head that could be exchanged."""


class NotTraceable(LayerbenchError):
    """Only a real run shows which operators the model runs; the message says what it needs."""


class NotEnoughMemory(LayerbenchError):
    """The run needs more memory than there is; the message states both."""


class DataError(LayerbenchError):
    """A data set that is missing or damaged; the message names the files to add."""


class TrainingStopped(LayerbenchError):
    """A training that cannot continue; the message names its last good checkpoint."""

    exit_status = 1


class OutputError(LayerbenchError):
    """A report cannot be written to its place."""


class RecordError(LayerbenchError):
    """A file that should hold a record and does not."""


class ComparisonError(LayerbenchError):
    """Two measurements that are not of the same work."""


class ServiceError(LayerbenchError):
    """The estimation service cannot be reached; the message says how to start one."""


class WorkerError(LayerbenchError):
    """A measuring process ended without a result."""


class UntrustedError(LayerbenchError):
    """``--strict`` and a condition that makes the numbers untrustworthy."""

    exit_status = 1


def first_line(error: BaseException) -> str:
    """An error's message on one line, without the stack or the advice of torch's errors."""
    text = message_of(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[0].startswith(_IN_SCRIPT):
        # The cause stands at the end, after the interpreter's own stack.
        lines = lines[-1:]
    if len(lines) > 1 and lines[1].startswith(_EXPLAINED):
        # Dynamo's first line is a title.
        lines = [lines[1].removeprefix(_EXPLAINED)]
    line = lines[0].rpartition(_ADVICE)[2].strip() or lines[0]
    return line if len(line) <= _LONG else f"{line.partition('. ')[0][:_LONG]}"


def typed_line(error: BaseException) -> str:
    """An error's type and its `first_line`: ``ValueError: no such size``."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def is_number(value: object, *, whole: bool = False) -> bool:
    """Whether it is one, NumPy's too; Python's True is none that anybody means."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def at_least(name: str, value: Number, least: float) -> Number:
    """The value.

    Raises:
        UsageError: it is less than it may be, or no such number: with a whole limit a whole one.
    """
    whole = isinstance(least, int)
    if not is_number(value, whole=whole):
        raise UsageError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
    if not value >= least:
        raise UsageError(f"{name} must be at least {least:g}, got {value:g}")
    return value


TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""The spellings of yes and no, in small letters."""


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """``did you mean A, B?``; empty if no name is similar.

    Args:
        name: as the user wrote it.
        names: that there are.
        most: number of names to suggest.
    """
    close = difflib.get_close_matches(name, list(names), n=most)
    return f"did you mean {', '.join(close)}?" if close else ""


def chosen(name: str, sources: Mapping[str, Found], what: str) -> Found:
    """The source of this name.

    Args:
        name: as the user wrote it.
        sources: by name.
        what: their name in the message.

    Raises:
        UsageError: there is none; the message lists the names.
    """
    if name in sources:
        return sources[name]
    close = did_you_mean(name, sources)
    hint = f" ({close})" if close else ""
    raise UsageError(f"no {what} {name!r}{hint}: choose from {', '.join(sorted(sources))}")
