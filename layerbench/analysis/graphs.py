"""Which rows a graph's nodes are, and which nodes are drawn as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from layerbench.records.graph import Graph, GraphNode

MOST_DRAWN = 200
"""Nodes of a picture: no layout of more can be read."""
PART = 40
"""Calls, or folds, in a fold of calls that are not alike."""
LEAST_ALIKE = 3
"""Calls of one type behind each other that make a fold."""


class Fold(NamedTuple):
    """Calls behind each other that are drawn as one.

    Attributes:
        start, end: the nodes' numbers, the last one not included.
        type: that they share; empty where they do not.
    """

    start: int
    end: int
    type: str


def row_of(path: str, node: GraphNode) -> str | None:
    """The path of a node's row; ``None`` for what has none.

    Args:
        path: of the module whose graph it is in.
        node: of the graph.
    """
    inside = f"{path}." if path else ""
    if node.kind == "module":
        return inside + node.name
    if node.kind == "other module":
        return node.name
    return f"{inside}{node.name}()" if node.kind == "function" else None


def folds(graph: Graph, types: Mapping[str, str], most: int = MOST_DRAWN) -> tuple[Fold, ...]:
    """What is drawn as one in a graph of more nodes than can be drawn.

    Runs of calls of one type first; where that does not suffice, calls behind each other. Order of
    execution has no edge back, so neither has the graph of folds.

    Args:
        graph: any.
        types: of modules, by path.
        most: nodes that can be drawn.

    Returns:
        the folds, each before those within it; none for a graph that can be drawn as it is.
    """
    if len(graph.nodes) <= most:
        return ()
    kinds = [_kind(graph.paths[0], node, types) for node in graph.nodes]
    found, items = [], []
    start = 0
    for type_, alike in groupby(kinds):
        end = start + sum(1 for _ in alike)
        if end - start >= LEAST_ALIKE:
            items.append(Fold(start, end, type_))
            found += [items[-1], *_parts(range(start, end), type_, most)]
        else:
            items += [Fold(at, at + 1, type_) for at in range(start, end)]
        start = end
    while len(items) > most:
        items = [
            Fold(items[at].start, items[min(at + PART, len(items)) - 1].end, "")
            for at in range(0, len(items), PART)
        ]
        found += items
    return tuple(sorted(set(found), key=lambda fold: (fold.start, -fold.end)))


def _parts(run: range, type_: str, most: int) -> list[Fold]:
    """A run of more than are drawn, in folds of its own."""
    if len(run) <= most // 2:
        return []
    return [
        Fold(at, min(at + PART, run.stop), type_)
        for at in range(run.start, run.stop, PART)
        if min(at + PART, run.stop) - at > 1
    ]


def _kind(path: str, node: GraphNode, types: Mapping[str, str]) -> str:
    """What alike nodes share."""
    row = row_of(path, node)
    return node.kind if row is None else types.get(row, f"{node.name}()")


class Joined(NamedTuple):
    """The tensors between two nodes: all edges from one to the other."""

    source: int
    target: int
    shapes: tuple[tuple[int, ...], ...]


def joined(graph: Graph, place: Sequence[int]) -> tuple[Joined, ...]:
    """The edges between the nodes that are drawn, those within one left out.

    Args:
        graph: any.
        place: of each node, the number of what it is drawn in.
    """
    between: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for source, target, shape in graph.edges:
        ends = place[source], place[target]
        if ends[0] != ends[1]:
            between.setdefault(ends, []).append(shape)
    return tuple(Joined(*ends, tuple(shapes)) for ends, shapes in between.items())
