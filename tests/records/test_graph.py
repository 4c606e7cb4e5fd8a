"""Graphs in records: what is refused, and that records without any are as they were."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from layerbench import reporters
from layerbench.errors import RecordError
from layerbench.records.graph import MOST_NODES, Graph
from layerbench.store import reading
from tests.support.sample_structures import INPUT, OUTPUT, graph, graphed, structure


def test_it_reads_back_as_it_was(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(reporters.render("json", graphed()), encoding="utf-8")
    assert reading.read(path) == graphed()


def test_a_record_without_graphs_has_no_field_of_them():
    assert "graphs" not in json.loads(reporters.render("json", structure()))
    assert json.loads(reporters.render("json", structure(graphs=())))["graphs"] == []


def _with(**changes: object) -> dict[str, object]:
    return {**graph("", [INPUT, OUTPUT], [(0, 1)]).model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"edges": [[1, 0, [2]]]},
        {"edges": [[0, 0, [2]]]},
        {"edges": [[0, 2, [2]]]},
        {"edges": [[-1, 1, [2]]]},
        {"edges": [[0, 1, [2**70]]]},
        {"nodes": [["input", ""], ["door", ""]]},
        {"nodes": [["input", ""]] * (MOST_NODES + 1), "edges": []},
        {"paths": []},
    ],
)
def test_what_leads_nowhere_back_or_too_far_is_refused(changes):
    assert Graph.model_validate_json(json.dumps(_with()))
    with pytest.raises(ValidationError):
        Graph.model_validate_json(json.dumps(_with(**changes)))


def test_a_module_has_one_graph(tmp_path):
    record = json.loads(reporters.render("json", graphed()))
    record["graphs"].append(record["graphs"][0])
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RecordError, match="two graphs"):
        reading.read(path)
