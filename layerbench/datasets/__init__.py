"""Data sets to train on: one file each, found by being here. Importing this loads no torch."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil

from layerbench.datasets.source import Asked, Images, Source, Splits
from layerbench.errors import UsageError

__all__ = ["Asked", "Images", "Source", "Splits", "get", "names"]


def names() -> tuple[str, ...]:
    """Every data set, in alphabetical order."""
    return tuple(sorted(_sources()))


def get(name: str) -> Source:
    """The data set of this name.

    Raises:
        UsageError: there is none; the message has the names.
    """
    if name in _sources():
        return _sources()[name]
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(f"no data set {name!r}{hint}: choose from {', '.join(names())}")


@functools.cache
def _sources() -> dict[str, Source]:
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")  # no data set, and free to load torch
    )
    sources: list[Source] = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return {source.name: source for source in sources}
