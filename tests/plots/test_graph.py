"""Pictures of a module's data flow."""

from __future__ import annotations

from importlib import import_module

import pytest

from layerbench import plots
from layerbench.errors import UsageError
from tests.support.pictures import texts, written_in
from tests.support.sample_profiles import layered
from tests.support.sample_structures import graphed, long_graph, structure


def test_calls_tensors_and_figures() -> None:
    found = texts(plots.graph(graphed(), "features.2", layered()))
    assert {"input", "conv", "add()", "output", "[2, 8, 16, 16]"} < set(found)
    assert any(text.startswith("Conv2d, ") and text.endswith("ms") for text in found)
    assert found.count("[2, 8, 16, 16]") == 4
    assert any(text.startswith("Data flow of features.2: tiny") for text in found)


def test_the_model_itself_and_other_figures() -> None:
    found = texts(plots.graph(graphed(), metric="parameters"))
    assert {"features", "classifier", "Linear, 90", "mean()"} < set(found)


def test_a_large_one_is_folded() -> None:
    found = written_in(plots.encoded(plots.graph(long_graph(), "features"), "svg"))
    folded = [text for text in found if text.startswith("calls ×")]
    assert 1 < len(folded) <= 200


def test_with_too_many_edges_their_shapes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("layerbench.plots.graph"), "MOST_LABELS", 3)
    assert "[2, 8, 16, 16]" not in texts(plots.graph(graphed(), "features.2"))


def test_what_cannot_be_drawn_says_what_can() -> None:
    with pytest.raises(UsageError, match=r"make it anew, by mem.py --struct"):
        plots.graph(structure())
    with pytest.raises(UsageError, match=r"no graph of classifier: .* such as features, features"):
        plots.graph(graphed(), "classifier")
    with pytest.raises(UsageError, match="not time"):
        plots.graph(graphed(), metric="time")
