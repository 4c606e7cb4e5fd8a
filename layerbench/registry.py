"""How data sets are found: each is a file of its package with a ``SOURCE``. Loads no torch."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from layerbench.errors import UsageError

Found = TypeVar("Found")


def found(package: str, path: Iterable[str]) -> dict[str, Any]:
    """Every ``SOURCE`` in the files of a package, by its own name.

    Args:
        package: its full name.
        path: its ``__path__``.
    """
    modules = (
        importlib.import_module(f"{package}.{file.name}")
        for file in pkgutil.iter_modules(path)
        # With an underscore it is no data set, and free to load torch; a package inside the
        # package is a kind of data sets of its own.
        if not file.name.startswith("_") and not file.ispkg
    )
    sources = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return {source.name: source for source in sources}


def chosen(name: str, sources: Mapping[str, Found], what: str) -> Found:
    """The source of this name.

    Args:
        name: as the user wrote it.
        sources: by name.
        what: they are, for the message.

    Raises:
        UsageError: there is none; the message has the names.
    """
    if name in sources:
        return sources[name]
    close = difflib.get_close_matches(name, sources, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(f"no {what} {name!r}{hint}: choose from {', '.join(sorted(sources))}")
