"""The layout of a graph: layers, few crossings, nothing on top of anything."""

from __future__ import annotations

import random

import pytest

from layerbench.plots import layered
from layerbench.plots.layered import Layout, layout

SIZE = (40.0, 20.0)


def laid(count: int, edges: list[tuple[int, int]]) -> Layout:
    return layout([SIZE] * count, edges, [30.0] * len(edges))


def test_a_chain_is_one_straight_line() -> None:
    found = laid(4, [(0, 1), (1, 2), (2, 3)])
    assert {x for x, _ in found.nodes} == {20.0}
    downs = [y for _, y in found.nodes]
    assert downs == sorted(downs)
    assert found.width == 40.0
    assert found.height == 4 * 20 + 3 * layered.BELOW


def test_a_residual_goes_straight_past_what_it_passes() -> None:
    found = laid(4, [(0, 1), (1, 2), (0, 3), (2, 3)])
    way = found.ways[2]
    for node in (1, 2):
        x, y = found.nodes[node]
        beside = [at for at, down in way if abs(down - y) <= SIZE[1] / 2 + 1e-9]
        assert len(beside) == 2
        assert all(abs(at - x) > SIZE[0] / 2 for at in beside)
    # The label of a long edge has room of its own.
    middle = found.middles[2]
    assert middle is not None
    assert all(
        abs(middle[0] - x) >= (SIZE[0] + 30) / 2 or abs(middle[1] - y) > SIZE[1] / 2
        for x, y in found.nodes
    )


def test_crossings_that_need_not_be_are_none() -> None:
    # Two chains whose second nodes come in the other order.
    found = laid(6, [(0, 3), (1, 2), (2, 5), (3, 4)])
    left = [found.nodes[node][0] for node in (0, 3, 4)]
    right = [found.nodes[node][0] for node in (1, 2, 5)]
    assert all((a < b) == (left[0] < right[0]) for a, b in zip(left, right, strict=True))


def test_what_comes_from_nothing_stands_right_above_what_takes_it() -> None:
    found = laid(5, [(0, 1), (1, 2), (2, 4), (3, 4)])
    assert found.nodes[3][1] == found.nodes[2][1]


@pytest.mark.parametrize("seed", range(5))
def test_nodes_never_overlap_and_edges_lead_down(seed: int) -> None:
    chance = random.Random(seed)
    count = 40
    edges = sorted({tuple(sorted(chance.sample(range(count), 2))) for _ in range(90)})
    found = laid(count, edges)
    for a, (x, y) in enumerate(found.nodes):
        assert SIZE[0] / 2 <= x + 1e-9
        assert x + SIZE[0] / 2 <= found.width + 1e-9
        for other, down in found.nodes[a + 1 :]:
            assert abs(down - y) > SIZE[1] or abs(other - x) >= SIZE[0] + layered.BETWEEN - 1e-6
    for source, target in edges:
        assert found.nodes[source][1] < found.nodes[target][1]


def test_of_very_many_edges_the_longest_go_around() -> None:
    count = 60
    edges = [(a, b) for b in range(count) for a in range(b)]
    found = laid(count, edges)
    around = [edge for edge, middle in zip(edges, found.middles, strict=True) if middle is None]
    assert around
    least = min(b - a for a, b in around)
    assert all(b - a <= least for edge in edges if edge not in set(around) for a, b in [edge])
    assert found.width > max(x for x, _ in found.nodes) + SIZE[0] / 2
