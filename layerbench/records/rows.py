"""What rows have in common: a place in the tree of modules, checked where they are read."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar

from pydantic import AfterValidator, Field

from layerbench.records.bounds import MOST_ABSENT, Count, Name, Path, Positive
from layerbench.records.tree import ancestors, depth_of, parent
from layerbench.records.workload import Frozen


class ModuleRow(Frozen):
    """One module; fields as in `layerbench.records.timing.LayerRow`."""

    path: Path
    type: Name
    depth: Count
    calls: Count
    block: bool = False
    position: Count | None = None
    turn: Positive | None = Field(default=None, exclude_if=operator.not_)


class _InTree(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def depth(self) -> int: ...


class _Named(Protocol):
    @property
    def name(self) -> str: ...


InTree = TypeVar("InTree", bound=_InTree)
Named = TypeVar("Named", bound=_Named)


def _rooted(rows: tuple[InTree, ...]) -> tuple[InTree, ...]:
    if any(bool(row.path) == (index == 0) for index, row in enumerate(rows)):
        raise ValueError("the first row, and no other, is the model's own, whose path is empty")
    return _in_order(rows)


def _below_root(rows: tuple[InTree, ...]) -> tuple[InTree, ...]:
    if not all(row.path for row in rows):
        raise ValueError("a row has an empty path, which is the whole model's")
    return _in_order(rows)


def _in_order(rows: tuple[InTree, ...]) -> tuple[InTree, ...]:
    """Require parents before their children, at the depth of their paths."""
    paths = [row.path for row in rows]
    check_distinct("the path", paths)
    named = set(paths)
    before: set[str] = set()
    for row in rows:
        if row.depth != depth_of(row.path):
            raise ValueError(
                f"the depth of {_short(row.path)} is {row.depth}, which its path does not say"
            )
        above = parent(row.path)
        if row.path and above in named and above not in before:
            raise ValueError(f"the row {_short(row.path)} stands before the one that holds it")
        before.add(row.path)
    check_absent(paths)
    return rows


def _distinct(rows: tuple[Named, ...]) -> tuple[Named, ...]:
    check_distinct("the phase", [row.name for row in rows])
    return rows


Tree = Annotated[tuple[InTree, ...], AfterValidator(_rooted)]
"""Rows in the order of a tree, the model's own first; none where layers were not looked at."""
Branches = Annotated[tuple[InTree, ...], AfterValidator(_below_root)]
"""The same without the model's own."""
Phases = Annotated[tuple[Named, ...], AfterValidator(_distinct)]
"""Rows of phases, each name once."""


def check_absent(paths: Sequence[str]) -> None:
    """Refuse paths so long and so far from every row that the places between would fill memory.

    Raises:
        ValueError: they are.
    """
    passed = set(paths)
    size = 0
    for path in paths:
        for above in ancestors(path):
            if not above or above in passed:
                break
            passed.add(above)
            size += len(above)
            if size > MOST_ABSENT:
                raise ValueError("too many paths between the rows have no rows themselves")


def check_distinct(what: str, names: Sequence[str]) -> None:
    """Refuse a name that occurs twice.

    Raises:
        ValueError: names it.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {_short(name)} occurs twice")
        seen.add(name)


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"
