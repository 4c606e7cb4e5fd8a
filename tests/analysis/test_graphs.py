"""What is drawn as one of a graph that is too large."""

from __future__ import annotations

import pytest

from layerbench.analysis.graphs import Fold, folds, joined
from layerbench.records.graph import Graph
from tests.support.sample_structures import FEATURES, INPUT, OUTPUT, graph

TYPES = {"a": "Conv2d", "b": "ReLU"}
A, B = ("module", "a"), ("module", "b")


def chain(*nodes: tuple[str, str]) -> Graph:
    every = [INPUT, *nodes, OUTPUT]
    return graph("", every, [(at, at + 1) for at in range(len(every) - 1)])


def outermost(found: tuple[Fold, ...], count: int) -> int:
    """How many nodes are drawn while all folds are closed."""
    at, drawn = 0, 0
    while at < count:
        fold = next((fold for fold in found if fold.start == at), None)
        at = fold.end if fold else at + 1
        drawn += 1
    return drawn


def test_what_can_be_drawn_is_drawn():
    assert folds(chain(*[A] * 8), TYPES, most=10) == ()


def test_runs_of_one_type_are_folded_first():
    found = folds(chain(B, *[A] * 6, B, B), TYPES, most=10)
    assert found[0] == Fold(2, 8, "Conv2d")
    assert all(fold.start >= 2 and fold.end <= 8 for fold in found)


def test_calls_that_are_not_alike_are_folded_where_that_does_not_suffice():
    found = folds(chain(*[A, B] * 300), TYPES)
    assert {fold.type for fold in found} == {""}
    assert outermost(found, 602) <= 200


@pytest.mark.parametrize("count", [201, 999, 4_900])
def test_no_more_is_drawn_than_can_be_and_each_fold_opens_to_no_more(count):
    nodes = [A] * (count // 2) + [A, B] * (count // 4)
    found = folds(chain(*nodes), TYPES)
    assert outermost(found, len(nodes) + 2) <= 200
    assert list(found) == sorted(found, key=lambda fold: (fold.start, -fold.end))
    for fold in found:
        inner = [one for one in found if fold.start <= one.start and one.end <= fold.end]
        inner.remove(fold)
        shifted = tuple(Fold(one.start - fold.start, one.end - fold.start, "") for one in inner)
        assert outermost(shifted, fold.end - fold.start) <= 150
        # Folds lie within each other or apart.
        for one in found:
            assert (
                one.end <= fold.start
                or fold.end <= one.start
                or one in inner
                or (one.start <= fold.start and fold.end <= one.end)
            )


def test_edges_within_a_fold_are_left_out_and_others_joined():
    found = graph("", [INPUT, A, A, OUTPUT], [(0, 1), (0, 2), (1, 2), (2, 3)])
    between = joined(found, [0, 1, 1, 2])
    assert [(one.source, one.target, one.shapes) for one in between] == [
        (0, 1, (FEATURES, FEATURES)),
        (1, 2, (FEATURES,)),
    ]
