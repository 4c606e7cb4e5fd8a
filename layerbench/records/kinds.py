"""Kinds of records: a class says its name, and everything that goes by kind asks the class."""

from __future__ import annotations

import functools
from typing import Literal

from layerbench import records
from layerbench.records.presented import Presented
from layerbench.records.workload import Frozen
from layerbench.registry import modules, offered

_DEFINED: dict[str, type[Record]] = {}


class Record(Presented, Frozen):
    """Base class of the records: one subclass for each kind.

    A kind of another package's is such a class, too, offered as an entry point of the group
    ``layerbench.records``.

    Attributes:
        record: the name of the kind, the same in all its records.
        schema_version: the first, or the versions that can still be read.
    """

    record: str
    schema_version: Literal[1] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        if _is_ours(cls):
            _DEFINED[cls.kind()] = cls
        else:
            _DEFINED.setdefault(cls.kind(), cls)

    @classmethod
    def kind(cls) -> str:
        """The name of the kind."""
        name: str = cls.model_fields["record"].default
        return name


@functools.cache
def named(kind: str) -> type[Record]:
    """The class of a kind. Who reads one kind does not wait for all others.

    Raises:
        KeyError: there is none of this name.
    """
    for _ in modules(records.__name__, records.__path__):
        if kind in _DEFINED and _is_ours(_DEFINED[kind]):
            return _DEFINED[kind]
    offered("layerbench.records")
    return _DEFINED[kind]


def names() -> tuple[str, ...]:
    """Of all kinds, those of other packages among them."""
    for _ in modules(records.__name__, records.__path__):
        pass
    offered("layerbench.records")
    return tuple(sorted(_DEFINED))


def _is_ours(kind: type[Record]) -> bool:
    return kind.__module__.startswith(f"{records.__name__}.")
