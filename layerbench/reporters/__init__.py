"""Formats of a record: one module a format, found by being here.

A module with a ``NAME`` is a format; it also has a ``SUFFIX`` and ``render(record) -> str``.
Rendering reads nothing but the record: no files, no flags, no clock, so that the same record
always gives the same text.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

from layerbench.errors import UsageError
from layerbench.workload import Frozen


class Reporter(Protocol):
    """What a format's module provides."""

    NAME: str
    SUFFIX: str

    def render(self, record: Frozen) -> str:
        """The whole report as text, ending in a newline."""


def names() -> tuple[str, ...]:
    """The known formats, in alphabetical order."""
    return tuple(_reporters())


def suffix(format: str) -> str:
    """What a file of this format is called at its end: ``.txt``.

    Raises:
        UsageError: no such format.
    """
    return _find(format).SUFFIX


def render(format: str, record: Frozen) -> str:
    """The record in this format.

    Raises:
        UsageError: no such format.
    """
    return _find(format).render(record)


def _find(format: str) -> Reporter:
    if format not in _reporters():
        raise UsageError(f"unknown format {format!r}: choose from {', '.join(names())}")
    return _reporters()[format]


@functools.cache
def _reporters() -> Mapping[str, Reporter]:
    """All formats by name. Found on first use: a module here may import this package."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    )
    formats = {module.NAME: cast(Reporter, module) for module in modules if hasattr(module, "NAME")}
    return MappingProxyType(dict(sorted(formats.items())))
