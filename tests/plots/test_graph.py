"""Pictures of a module's data flow."""

from __future__ import annotations

from importlib import import_module
from itertools import combinations

import pytest

from layerbench import plots
from layerbench.errors import UsageError
from layerbench.records.graph import Graph
from layerbench.records.tree import Metric
from tests.support.pictures import texts, written_in
from tests.support.sample_profiles import layered
from tests.support.sample_structures import INPUT, OUTPUT, graphed, long_graph, structure


def test_calls_tensors_and_figures() -> None:
    found = texts(plots.graph(graphed(), "features.2", layered()))
    assert {"input", "conv", "add()", "output", "[2, 8, 16, 16]"} < set(found)
    assert any(text.startswith("Conv2d, ") and text.endswith("ms") for text in found)
    assert found.count("[2, 8, 16, 16]") == 4
    assert any(text.startswith("Data flow of features.2: tiny") for text in found)


def test_the_model_itself_and_other_figures() -> None:
    found = texts(plots.graph(graphed(), metric="parameters"))
    assert {"features", "classifier", "Linear, 90", "mean()"} < set(found)


@pytest.mark.parametrize("metric", [None, "flops"])
def test_a_model_without_any_figures_has_a_graph_without_colours(metric: Metric | None) -> None:
    """Of one that pools alone, say, or returns what it was given."""
    rows = tuple(
        row.model_copy(update={"flops": 0, "self_flops": 0, "parameters": 0})
        for row in structure().rows
    )
    bare = graphed().model_copy(update={"rows": rows, "flops": 0, "parameters": 0})
    found = texts(plots.graph(bare, "features.2", metric=metric))
    assert {"input", "conv", "Conv2d", "add()", "output"} < set(found)
    assert not any("share" in text for text in found)
    with pytest.raises(UsageError, match="no layer has any flops"):
        plots.icicle(bare, metric)


def test_without_flops_a_structure_is_drawn_by_its_parameters() -> None:
    rows = tuple(row.model_copy(update={"flops": 0, "self_flops": 0}) for row in structure().rows)
    bare = graphed().model_copy(update={"rows": rows, "flops": 0})
    assert "Linear, 90" in texts(plots.graph(bare))


def test_a_large_one_is_folded() -> None:
    found = written_in(plots.encoded(plots.graph(long_graph(), "features"), "svg"))
    folded = [text for text in found if text.startswith("calls ×")]
    assert 1 < len(folded) <= 200
    assert any(text.startswith("input to ") for text in found)


def test_no_shape_lies_over_another_one() -> None:
    """Of one tensor to many nodes, and of different ones from a node to two."""
    nodes = [INPUT, *[("function", "f")] * 4, ("function", "g"), OUTPUT]
    edges = [*((0, at, (1, 64, 32, 32)) for at in range(1, 5)), (1, 5, (8, 3)), (2, 5, (9, 3))]
    joins = [(at, 6, (7,) * at) for at in range(1, 6)]
    made = Graph.model_validate({"paths": [""], "nodes": nodes, "edges": [*edges, *joins]})
    figure = plots.graph(structure(graphs=(made,)))
    shapes = [text for text in figure.axes[0].texts if text.get_text().startswith("[")]
    assert {text.get_text() for text in shapes} >= {"[1, 64, 32, 32]", "[8, 3]", "[9, 3]"}
    boxes = [text.get_window_extent() for text in shapes]
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]


def test_with_too_many_edges_their_shapes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("layerbench.plots.graph"), "MOST_LABELS", 3)
    assert "[2, 8, 16, 16]" not in texts(plots.graph(graphed(), "features.2"))


def test_what_cannot_be_drawn_says_what_can() -> None:
    with pytest.raises(UsageError, match=r"make it anew, by layerbench mem --struct"):
        plots.graph(structure())
    with pytest.raises(UsageError, match="TinyNet has no layers in it"):
        plots.graph(structure(rows=structure().rows[:1]))
    with pytest.raises(UsageError, match=r"no graph of classifier: .* such as features, features"):
        plots.graph(graphed(), "classifier")
    with pytest.raises(UsageError, match="not time"):
        plots.graph(graphed(), metric="time")
