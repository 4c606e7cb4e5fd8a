from __future__ import annotations

import sys

import layerbench.cluster
from layerbench.cluster import measuring, probe
from layerbench.errors import WorkerError


def test_a_node_without_layerbench_or_with_an_older_one_says_so(monkeypatch):
    monkeypatch.delattr(layerbench.cluster, "measuring")
    monkeypatch.setitem(sys.modules, "layerbench.cluster.measuring", None)
    problem = f"has no layerbench that can measure: install it for {sys.executable}"
    assert probe.describe() == {"problem": problem}


def test_a_node_that_cannot_be_described_says_why(monkeypatch):
    def describe():
        raise WorkerError("the measuring process ended: no libcuda")

    monkeypatch.setattr(measuring, "describe", describe)
    assert probe.describe() == {
        "problem": "cannot be described: the measuring process ended: no libcuda"
    }
