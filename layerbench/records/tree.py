"""The order of rows in a module tree, by their paths. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

Number = TypeVar("Number", int, float)

# Figures of a row that can be drawn.
Metric = Literal["time", "self", "flops", "parameters", "memory"]


def parent(path: str) -> str:
    """The path above. A function's name holds no dot, so one rule serves both kinds of rows."""
    return path.rpartition(".")[0]


def ancestors(path: str) -> Iterator[str]:
    """The paths above, innermost first; the model's, ``""``, is the last."""
    while path:
        path = parent(path)
        yield path


def holder(path: str, rows: Collection[str]) -> str:
    """The innermost path above that names a row; the model's, ``""``, always does.

    A module may have a dot in its own name: what stands before it then names no row.
    """
    return next(above for above in ancestors(path) if not above or above in rows)


def tree_order(paths: Sequence[str], orders: Sequence[int | None]) -> list[int]:
    """Depth first; among siblings those that ran in order of their first call, then the others.

    What is never called itself, such as a `torch.nn.ModuleList`, runs when the first module in it
    does.

    Args:
        paths: of the rows; the first is the model's, ``""``.
        orders: of each row's first call, ``None`` if it did not run.

    Returns:
        the rows' indices in tree order.
    """
    children: dict[str, list[int]] = {}
    named = set(paths)
    for index, path in enumerate(paths):
        if path:
            children.setdefault(holder(path, named), []).append(index)
    first = _first_calls(paths, orders)
    for siblings in children.values():
        siblings.sort(key=lambda i: (first[i] is None, first[i] or 0, i))
    ordered: list[int] = []
    waiting = [0]
    while waiting:
        index = waiting.pop()
        ordered.append(index)
        waiting.extend(reversed(children.get(paths[index], [])))
    return ordered


def _first_calls(paths: Sequence[str], orders: Sequence[int | None]) -> list[int | None]:
    """The first call of each row, or else the first call below it."""
    first = list(orders)
    index_of = {path: index for index, path in enumerate(paths)}
    for index in sorted(range(len(paths)), key=lambda i: depth_of(paths[i]), reverse=True):
        above = index_of.get(parent(paths[index]), index) if paths[index] else index
        at = first[index]
        if orders[above] is None and at is not None:
            earliest = first[above]
            first[above] = at if earliest is None else min(earliest, at)
    return first


def positions(types: Iterable[str], numbered: Iterable[bool]) -> list[int | None]:
    """Number the rows that are to be numbered, by type, from 1."""
    seen: Counter[str] = Counter()
    numbers: list[int | None] = []
    for kind, is_numbered in zip(types, numbered, strict=True):
        if is_numbered:
            seen[kind] += 1
        numbers.append(seen[kind] if is_numbered else None)
    return numbers


class Placed(NamedTuple):
    """A row in its place in the tree.

    Attributes:
        row: its index among those given.
        position: for a block that ran, its number among those of its type, from 1, in order of
            execution.
        turn: its number among all blocks, where the tree's order is not that of execution.
    """

    row: int
    position: int | None
    turn: int | None


class Row(Protocol):
    """What `placed` asks of a row; `layerbench.records.samples.RowFacts` is one."""

    @property
    def path(self) -> str:
        """Qualified name."""

    @property
    def type(self) -> str:
        """Class name."""

    @property
    def order(self) -> int | None:
        """When it was first called."""

    @property
    def calls(self) -> int:
        """How often it was called."""

    @property
    def block(self) -> bool:
        """Whether it stands in the block view."""


def placed(rows: Sequence[Row]) -> list[Placed]:
    """The rows in tree order, with the numbers of the blocks that ran.

    Args:
        rows: the first is the model's; ``order`` is that of the first call.
    """
    order = tree_order([row.path for row in rows], [row.order for row in rows])
    in_tree = [index for index in order if rows[index].block and rows[index].calls]
    executed = sorted(in_tree, key=lambda index: _when(rows[index].order))
    numbers = positions((rows[index].type for index in executed), [True] * len(executed))
    position = dict(zip(executed, numbers, strict=True))
    turn = {} if executed == in_tree else {index: n for n, index in enumerate(executed, start=1)}
    return [Placed(index, position.get(index), turn.get(index)) for index in order]


def _when(order: int | None) -> float:
    return math.inf if order is None else order


def with_ancestors(own: dict[str, Number]) -> dict[str, Number]:
    """For each path the sum of its own and all values below it; paths without any are left out."""
    paths = set(own)
    for path in own:
        for above in ancestors(path):
            if above in paths:
                break
            paths.add(above)
    sums = dict(own)
    # Each passes on what it holds to the path above, the deepest first: linear in depth.
    for path in sorted(paths - {""}, key=depth_of, reverse=True):
        above = parent(path)
        sums[above] = sums[above] + sums[path] if above in sums else sums[path]
    return sums


def depth_of(path: str) -> int:
    """0 for the model itself, 1 for its children."""
    return path.count(".") + 1 if path else 0
