"""The examples run as they are."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerbench import detection, reporters
from layerbench.api import verification
from layerbench.store import reading
from tests.support.paths import ROOT

SCRIPT = ROOT / "examples" / "ci" / "compare.sh"
MODEL = """
import torch
from torch import nn

class Work(nn.Module):
    def forward(self, x):
        for _ in range({repeats}):
            x = torch.sin(x)
        return x

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Work(), nn.Conv2d(4, 4, 3))
"""
# One process of each checkout: fresh ones, several a side, are asked for elsewhere.
QUICK = ("--warmup", "2", "--processes", "1", "--iterations", "10", "--device", "cpu")
UNDISTURBED = ROOT / "tests" / "support" / "undisturbed.py"


@pytest.fixture
def compare(tmp_path):
    """``compare(base, head)``: two checkouts whose middle layer works so often, compared."""

    def call(base: int, head: int) -> subprocess.CompletedProcess[str]:
        for name, repeats in (("base", base), ("head", head)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "model.py").write_text(MODEL.format(repeats=repeats), encoding="utf-8")
        given = ("base", "head", "model.py:build", "1x3x64x64", "out", *QUICK, "--threads", "1")
        python = tmp_path / "programs" / "python"
        python.parent.mkdir(exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{UNDISTURBED}" "$@"\n')
        python.chmod(0o755)
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["sh", str(SCRIPT), *given],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.mark.slow
def test_a_slower_layer_fails_and_the_table_says_which(compare, tmp_path):
    done = compare(1, 300)
    assert done.returncode == 1, done.stderr
    table = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert table in done.stdout
    line = next(line for line in table.splitlines() if "| `1` " in line)
    assert "SLOWER" in line
    assert "Work" in line


def test_without_arguments_it_says_how(tmp_path):
    done = subprocess.run(
        ["sh", str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "compare.sh BASE HEAD MODEL INPUT OUT" in done.stderr


TRAINED = sorted((ROOT / "examples" / "training").rglob("*.json"))
DETECTED = sorted((ROOT / "examples" / "detection").rglob("*.json"))


@pytest.mark.parametrize(
    "path",
    [p for p in (*TRAINED, *DETECTED) if p.name != reading.RECIPE],
    ids=lambda path: path.name,
)
def test_the_reports_of_the_examples_are_those_of_their_records(path: Path):
    record = reading.read(path)
    texts = {
        "run.json": {"stats.log": "txt", "metrics.csv": "csv"},
        "detection.json": {"report.txt": "txt", "metrics.csv": "csv"},
    }
    others = {path.with_suffix(f".{name}").name: name for name in ("txt", "csv", "md")}
    beside = texts.get(path.name, others)
    found = {name: format for name, format in beside.items() if (path.parent / name).exists()}
    assert found
    for name, format in found.items():
        assert (path.parent / name).read_text() == reporters.render(format, record), name


def test_the_training_example_reads_digits():
    (path,) = (path for path in TRAINED if path.name == "run.json")
    record = reading.read(path)
    assert record.outcome == "finished"
    assert record.best.val_accuracy > 0.95
    assert record.environment.software.dirty is False


def test_what_no_machine_can_change_of_the_profiled_step_is_as_committed():
    (path,) = (ROOT / "examples" / "training").glob("*/*_train_sgd.json")
    assert list(verification.checked([path])) == [(path, None, None)]


def test_the_detection_example_measured_every_detector():
    (path,) = (ROOT / "examples" / "detection").glob("*/detection_*.json")
    record = reading.read(path)
    assert [row.model for row in record.rows] == list(detection.names())
    assert record.failures == ()
    assert record.environment.software.dirty is False
    for row in record.rows:
        assert row.parts_ratio == pytest.approx(1, abs=0.02), row.model
        assert row.memory is not None, row.model
        assert row.forward_s > 0, row.model
        assert row.backward_s > 0, row.model
        assert row.inferred.detections is not None, row.model


def test_the_detection_example_is_taken_apart():
    (path,) = (path for path in DETECTED if path.name == "detection.json")
    record = reading.read(path)
    assert record.parts_ratio == pytest.approx(1, abs=0.02)
    assert {part.name for part in record.parts} >= {"transform", "backbone", "RPN", "heads"}
    assert record.bottleneck is not None
    assert record.tuning is not None
    trace = json.loads(gzip.decompress((path.parent / "trace.json.gz").read_bytes()))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"layerbench part: backbone", "layerbench phase: backward"} <= names
