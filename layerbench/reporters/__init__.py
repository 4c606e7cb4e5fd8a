"""Formats of a record: one module a format, called as the format is and found by being here.

A module with a ``NAME`` is a format; it also has a ``SUFFIX`` and ``render(record) -> str``. One
whose ``render`` has a second parameter, ``view``, shows what a `View` says.
A format that is for profiles alone says so with ``PROFILES_ONLY = True`` and gets no other record,
or with ``STEPS_TOO = True`` those of training steps; one that draws layers also says
``NEEDS_LAYERS = True``. Rendering reads nothing but the record: no
files, no flags, no clock, so that the same record always gives the same text.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

from layerbench.environment.collection import no_collection
from layerbench.errors import UsageError
from layerbench.records.bundle import times_in
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.registry import modules, offered
from layerbench.reporters.documents import with_view


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


def check(format: str, *, profile: bool, layers: bool = True, step: bool = False) -> None:
    """Find out before a long run whether its record can be written in a format.

    Args:
        format: its name.
        profile: whether the record will be a profile.
        layers: whether it will have layers.
        step: whether it will be of a training step.

    Raises:
        UsageError: no such format, or not for such a record.
    """
    steps_too = bool(getattr(_find(format), "STEPS_TOO", False))
    takes = profile or (step and steps_too)
    if getattr(_find(format), "PROFILES_ONLY", False) and not takes:
        kinds = "time profiles and training steps" if steps_too else "time profiles"
        raise UsageError(f"the format {format} is for {kinds} only")
    if needs_layers(format) and not layers:
        raise UsageError(
            f"the format {format} draws layers, and only the whole model would be timed: take "
            "--granularity layers"
        )


def needs_layers(format: str) -> bool:
    """Whether a format has nothing to draw without layers.

    Raises:
        UsageError: no such format.
    """
    return bool(getattr(_find(format), "NEEDS_LAYERS", False))


def content(format: str, record: Frozen) -> Frozen:
    """What of a record a format shows: of a bundle the profile, where it is for profiles alone.

    Raises:
        UsageError: no such format.
    """
    alone = getattr(_find(format), "PROFILES_ONLY", False)
    return (times_in(record) or record) if alone else record


def render(format: str, record: Frozen, view: View = USUAL) -> str:
    """The record in this format.

    Args:
        format: its name.
        record: of any kind.
        view: what a report for people shows; a format for programs has all.

    Raises:
        UsageError: no such format, or not for such a record.
    """
    with no_collection():
        record = content(format, record)
        check(
            format,
            profile=isinstance(record, Profile),
            step=isinstance(record, TrainingProfile),
        )
        return with_view(_find(format).render, record, view)


@functools.cache
def _find(format: str) -> Reporter:
    """The format's module, looked for under its name before all others are loaded."""
    name = f"{__name__}.{format}"
    if format.isidentifier() and importlib.util.find_spec(name) is not None:
        module = importlib.import_module(name)
        if getattr(module, "NAME", None) == format:
            return cast(Reporter, module)
    if format not in _reporters():
        raise UsageError(f"unknown format {format!r}: choose from {', '.join(names())}")
    return _reporters()[format]


@functools.cache
def _reporters() -> Mapping[str, Reporter]:
    """All formats by name. Found on first use: a module here may import this package."""
    files = [file for file in modules(__name__, __path__) if hasattr(file, "NAME")]
    # A format of ours is not taken over by another package's of the same name.
    every = (*offered("layerbench.reporters"), *files)
    formats = {module.NAME: cast(Reporter, module) for module in every}
    return MappingProxyType(dict(sorted(formats.items())))
