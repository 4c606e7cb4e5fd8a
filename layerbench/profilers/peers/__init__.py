"""Other packages' reports of the same model, which stand beside our own.

The packages are loaded when they are asked for. Whatever one of them raises, it is a reason in its
report, and the rest of the record is whole.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Iterator
from types import ModuleType

from layerbench.environment.software import package_versions
from layerbench.errors import first_line, message_of


class PeerFailed(Exception):
    """A package has nothing to say of a model, and the message says why."""


def loaded(package: str) -> tuple[ModuleType, str]:
    """A package and its version.

    Args:
        package: as it is called where it is installed from.

    Raises:
        PeerFailed: it is not installed, or cannot be imported; says what to do.
    """
    try:
        with quietly():
            module = importlib.import_module(package.replace("-", "_"))
        return module, package_versions([package]).get(package, "unknown")
    except ModuleNotFoundError as error:
        raise PeerFailed(f"{error.name} is not installed: pip install {package}") from error
    except Exception as error:
        raise PeerFailed(f"{package} cannot be imported: {first_line(error)}") from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what a package prints and warns of to itself: a report goes to standard output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def cause_of(error: BaseException) -> str:
    """One line that says what went wrong at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = first_line(error) if message_of(error) else type(error).__name__
    # Where an object lies is different each time.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", said)
