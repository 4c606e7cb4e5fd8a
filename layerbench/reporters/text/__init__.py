"""Plain text, made to be read in a pull request and searched with grep."""

from __future__ import annotations

import importlib
from typing import Any

from layerbench.records.workload import Frozen
from layerbench.text import shown

NAME = "txt"
SUFFIX = ".txt"

# The module here that has the report of a record, by the value of the record's field ``record``.
# Loaded when it is needed: a comparison does not wait for all the others.
_MODULES = {
    "profile": "timing",
    "structure": "structure",
    "memory": "memory",
    "memory estimate": "memory_estimate",
    "comparison": "comparison",
    "training profile": "training",
    "training run": "document",
    "training forecast": "document",
    "sweep": "document",
    "detection estimates": "document",
    "detection run": "document",
}


def render(record: Frozen) -> str:
    """The whole report of a record of any kind."""
    kind = getattr(record, "record", None)
    if kind not in _MODULES:
        raise TypeError(f"no text report for a {type(record).__name__}")
    module: Any = importlib.import_module(f"{__name__}.{_MODULES[kind]}")
    text: str = module.render(shown(record))
    return text
