"""Where the nodes of a directed graph stand: in layers from top to bottom, edges led past nodes.

After K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system
structures", IEEE Transactions on Systems, Man, and Cybernetics 11(2), 1981: layers by the longest
way, few crossings by barycentres, then places across as near as possible to the neighbours'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Point = tuple[float, float]
Edge = tuple[int, int]
Neighbours = dict[int, list[int]]

MOST_PASSED = 1_500
"""Layers that edges pass, all together: longer ones go around all nodes."""
SWEEPS = 12
BETWEEN = 14.0
"""Points between neighbours in a layer; ``BELOW`` between layers."""
BELOW = 30.0
PASSING = 12.0
"""Points that an edge takes in a layer that it passes, without a label."""
# A straight long edge is worth more than a child right below its parent.
STRAIGHT = 4.0
BOW = 10.0
ASIDE = 300.0
"""Points for all edges that go around."""


@dataclass(frozen=True)
class Layout:
    """Places in points, from the left and from the top.

    Attributes:
        nodes: middles.
        ways: of each edge, from the middle of the source's lower side to that of the target's upper
            one; of an edge that goes around, from right side to right side.
        middles: of each edge, where its label stands; ``None`` where it goes around.
        width, height: of all.
    """

    nodes: tuple[Point, ...]
    ways: tuple[tuple[Point, ...], ...]
    middles: tuple[Point | None, ...]
    width: float
    height: float


def layout(sizes: Sequence[Point], edges: Sequence[Edge], labels: Sequence[float]) -> Layout:
    """Lay a graph out.

    Args:
        sizes: widths and heights of the nodes, in points.
        edges: each from a node to one with a higher number, none twice.
        labels: widths of the edges' labels.
    """
    ranks = _ranks(len(sizes), edges)
    near = _near(edges, ranks)
    layers, chains = _layers(ranks, edges, near)
    ways_down: Neighbours = {one: [] for layer in layers for one in layer}
    ways_up: Neighbours = {one: [] for one in ways_down}
    for chain in chains.values():
        for upper, lower in pairwise(chain):
            ways_down[upper].append(lower)
            ways_up[lower].append(upper)
    _order(layers, ways_up, ways_down)
    widths = {node: size[0] for node, size in enumerate(sizes)}
    for edge, chain in chains.items():
        middle = len(chain) // 2
        for at, passed in enumerate(chain[1:-1], 1):
            widths[passed] = max(PASSING, labels[edge]) if at == middle else PASSING
    across = _across(layers, widths, ways_up, ways_down, len(sizes))
    return _placed(sizes, edges, layers, chains, across)


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    """The layer of each node: below all that it comes from; what comes from nothing, just above."""
    ranks = [0] * count
    into = [False] * count
    for source, target in sorted(edges):
        ranks[target] = max(ranks[target], ranks[source] + 1)
        into[target] = True
    nearest: dict[int, int] = {}
    for source, target in edges:
        nearest[source] = min(nearest.get(source, count), ranks[target])
    return [
        rank if into[node] or node not in nearest else nearest[node] - 1
        for node, rank in enumerate(ranks)
    ]


def _near(edges: Sequence[Edge], ranks: Sequence[int]) -> set[int]:
    """The edges that are led from layer to layer: the shortest."""
    near, passed = set(), 0
    spans = [ranks[target] - ranks[source] for source, target in edges]
    for edge in sorted(range(len(edges)), key=lambda edge: spans[edge]):
        passed += spans[edge]
        if passed > MOST_PASSED and spans[edge] > 1:
            break
        near.add(edge)
    return near


def _layers(
    ranks: Sequence[int], edges: Sequence[Edge], near: set[int]
) -> tuple[list[list[int]], dict[int, list[int]]]:
    """Nodes and passing edges by layer; each edge as a chain of what stands for it."""
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=0) + 1)]
    for node, rank in enumerate(ranks):
        layers[rank].append(node)
    chains, number = {}, len(ranks)
    for edge in sorted(near):
        source, target = edges[edge]
        passed = range(ranks[source] + 1, ranks[target])
        chains[edge] = [source, *range(number, number + len(passed)), target]
        for at, rank in enumerate(passed, number):
            layers[rank].append(at)
        number += len(passed)
    return layers, chains


def _order(layers: list[list[int]], up: Neighbours, down: Neighbours) -> None:
    """Put each layer in the order that crosses least, of those that the sweeps find."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, down)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        towards = up if sweep % 2 == 0 else down
        ordered = layers if sweep % 2 == 0 else layers[::-1]
        for fixed, free in pairwise(ordered):
            place = {node: at for at, node in enumerate(fixed)}
            here = {node: float(at) for at, node in enumerate(free)}
            free.sort(key=_barycentre(towards, place, here))
        crossings = _crossings(layers, down)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _barycentre(
    towards: Neighbours, place: dict[int, int], here: dict[int, float]
) -> Callable[[int], float]:
    def middle(node: int) -> float:
        known = [place[one] for one in towards[node] if one in place]
        return fmean(known) if known else here[node]

    return middle


def _crossings(layers: Sequence[Sequence[int]], down: Neighbours) -> int:
    found = 0
    for upper, lower in pairwise(layers):
        place = {node: at for at, node in enumerate(lower)}
        ends = [place[one] for node in upper for one in sorted(down[node], key=place.__getitem__)]
        found += sum(a > b for at, a in enumerate(ends) for b in ends[at + 1 :])
    return found


def _across(
    layers: Sequence[Sequence[int]],
    widths: dict[int, float],
    up: Neighbours,
    down: Neighbours,
    nodes: int,
) -> dict[int, float]:
    """Places across, of the middles."""
    across: dict[int, float] = {}
    for layer in layers:
        left = 0.0
        for node in layer:
            across[node] = left + widths[node] / 2
            left += widths[node] + BETWEEN
    for sweep in range(SWEEPS):
        towards = up if sweep % 2 == 0 else down
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [
                fmean(across[one] for one in towards[node]) if towards[node] else across[node]
                for node in layer
            ]
            weights = [
                STRAIGHT if node >= nodes else 1.0 if towards[node] else 0.1 for node in layer
            ]
            across.update(zip(layer, _apart(layer, widths, wanted, weights), strict=True))
    left = min((across[one] - widths[one] / 2 for one in across), default=0.0)
    return {one: at - left for one, at in across.items()}


def _apart(
    layer: Sequence[int],
    widths: dict[int, float],
    wanted: Sequence[float],
    weights: Sequence[float],
) -> list[float]:
    """The places nearest to the wanted ones with room between neighbours.

    Least squares under an order: neighbours that are too close become one block (pool adjacent
    violators).
    """
    offsets = [0.0]
    for a, b in pairwise(layer):
        offsets.append(offsets[-1] + (widths[a] + widths[b]) / 2 + BETWEEN)
    blocks: list[tuple[float, float, int]] = []  # place, weight, how many
    for want, offset, own in zip(wanted, offsets, weights, strict=True):
        place, weight, count = want - offset, own, 1
        while blocks and blocks[-1][0] > place:
            other, heavy, more = blocks.pop()
            place = (place * weight + other * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + more
        blocks.append((place, weight, count))
    places = [place for place, _, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]


def _placed(
    sizes: Sequence[Point],
    edges: Sequence[Edge],
    layers: Sequence[Sequence[int]],
    chains: dict[int, list[int]],
    across: dict[int, float],
) -> Layout:
    count = len(sizes)
    down: dict[int, float] = {}
    half: dict[int, float] = {}
    top = 0.0
    for layer in layers:
        high = max((sizes[one][1] for one in layer if one < count), default=0.0)
        down.update((one, top + high / 2) for one in layer)
        half.update((one, high / 2) for one in layer)
        top += high + BELOW
    right = max(
        (at + (sizes[one][0] if one < count else PASSING) / 2 for one, at in across.items()),
        default=0.0,
    )
    step = min(BOW / 2, ASIDE / max(1, len(edges) - len(chains)))
    ways: list[tuple[Point, ...]] = []
    middles: list[Point | None] = []
    for edge, (source, target) in enumerate(edges):
        if edge in chains:
            way = [(across[source], down[source] + sizes[source][1] / 2)]
            passed = chains[edge][1:-1]
            for one in passed:  # straight past the nodes beside it
                way += [(across[one], down[one] - half[one]), (across[one], down[one] + half[one])]
            way.append((across[target], down[target] - sizes[target][1] / 2))
            ends = passed[len(passed) // 2 :][:1] or (source, target)
            middles.append((_mean(across, ends), _mean(down, ends)))
        else:
            right += step
            begin = (across[source] + sizes[source][0] / 2, down[source])
            end = (across[target] + sizes[target][0] / 2, down[target])
            way = [begin, (right, begin[1] + BOW), (right, end[1] - BOW), end]
            middles.append(None)
        ways.append(tuple(way))
    return Layout(
        nodes=tuple((across[one], down[one]) for one in range(count)),
        ways=tuple(ways),
        middles=tuple(middles),
        width=right,
        height=max(0.0, top - BELOW),
    )


def _mean(places: dict[int, float], of: Sequence[int]) -> float:
    return fmean(places[one] for one in of)
