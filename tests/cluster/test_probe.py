from __future__ import annotations

import os
import subprocess
import sys

import pytest

import layerbench.cluster
from layerbench.cluster import measuring, probe
from layerbench.errors import WorkerError
from tests.support.paths import ROOT


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


@pytest.mark.parametrize(
    ("preloaded", "left"),
    [
        ("/venv/lib/ray/core/libjemalloc.so", None),
        ("/usr/lib/libtcmalloc.so:/venv/lib/ray/core/libjemalloc.so", "/usr/lib/libtcmalloc.so"),
        ("/usr/lib/libjemalloc.so", "/usr/lib/libjemalloc.so"),
    ],
)
def test_a_measurement_allocates_as_locally_and_not_as_ray(preloaded, left):
    # The parent of a worker is Ray's own process.
    asked = (
        "from layerbench.cluster.probe import node_variables; "
        "print(node_variables().get('LD_PRELOAD'))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "{asked}"; true', sys.executable],
        env={**os.environ, "LD_PRELOAD": preloaded, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{left}\n"
