"""`benchmarks/gpu.sh` on a CPU, on the simulated accelerator, and where steps fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.gpu import graphs, loop
from benchmarks.gpu.__main__ import STEPS
from tests.simulated.process import library_or_skip
from tests.support.paths import ROOT
from tests.support.python_of_forks import python_of_forks


def run_script(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "benchmarks/gpu.sh", *words],
        cwd=ROOT,
        env={**os.environ, "LAYERBENCH_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def outcomes(out: Path) -> dict[str, str]:
    """Each step's status."""
    lines = (out / "steps.tsv").read_text().splitlines()
    return {name: status for name, status, _ in (line.split("\t") for line in lines)}


def figures(out: Path, step: str) -> dict[str, object]:
    record = json.loads((out / f"{step}.json").read_text())
    assert record["finished"]
    return dict(record["figures"])


def run_steps(out: Path, device: str, steps: Sequence[str]) -> Path:
    """Steps on a device, as quickly as they can be."""
    archive = out.with_suffix(".tgz")
    with python_of_forks() as python:
        done = run_script(
            *(python, "--quick", "--device", device, "--out", str(out)),
            *("--archive", str(archive), "--only", " ".join(steps)),
        )
    assert outcomes(out) == dict.fromkeys(steps, "0"), done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n{len(steps)} of {len(steps)} steps ok, " in done.stdout
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    written = [f"./{name}.{suffix}" for name in steps for suffix in ("json", "txt")]
    written = [name for name in written if "./tests." not in name]
    assert {"./summary.txt", "./benchmarks.md", *written} <= names
    return out


@pytest.mark.slow
def test_what_a_cpu_cannot_do_is_said(tmp_path: Path) -> None:
    steps = ["events", "rounds", "ramp", "processes", "limit", "reports"]
    out = run_steps(tmp_path / "out", "cpu", steps)
    assert "events" in figures(out, "events")["absent"]  # type: ignore[operator]
    (point,) = figures(out, "rounds")["points"]  # type: ignore[misc]
    assert point["perturbed"]
    assert len(list(out.glob("stats/*/layers/*tiny_1x3x16x16.txt"))) == 1
    assert "all" in figures(out, "limit")["absent"]  # type: ignore[operator]
    assert "| benchmarks.gpu.tiny:tiny | 2 " in (out / "benchmarks.md").read_text()


@pytest.mark.slow
def test_every_step_runs_on_the_simulated_accelerator(tmp_path: Path) -> None:
    library_or_skip()
    out = run_steps(tmp_path / "out", "sim", [*STEPS, "tests"])
    # Whether the queue can be held depends on how busy the host is.
    absent = {step: list(figures(out, step)["absent"]) for step in STEPS if step != "events"}  # type: ignore[call-overload]
    assert {step: names for step, names in absent.items() if names} == {
        "rounds": ["graph of benchmarks.gpu.tiny:tiny, batch 2"],
        "ramp": ["the device's clock"],
        "processes": ["get_device_properties"],
        "prediction": ["hidden"],
        "graphs": [f"{way} of benchmarks.gpu.tiny:tiny" for way in graphs.WAYS],
    }
    (point,) = figures(out, "rounds")["points"]  # type: ignore[misc]
    assert point["kernels"] > 0
    assert point["kernels_s"] == pytest.approx(point["rows_s"])
    ways = [way["name"] for way in figures(out, "events")["ways"]]  # type: ignore[attr-defined]
    assert ways == ["torch.Event.record()", "torch.Event.record(stream)"]
    failed = [one for one in figures(out, "limit")["attempts"] if one["error"]]  # type: ignore[attr-defined]
    assert len(failed) == 2
    assert len(list(out.glob("stats/*/memory_reports/*.json"))) == 2
    assert "0 failures, 0 errors" in (out / "summary.txt").read_text()
    assert all(one["recognised"] and one["usable"] for one in failed)


def test_the_last_step_has_time_left_where_all_others_take_all_of_theirs() -> None:
    text = (ROOT / "benchmarks/gpu.sh").read_text()
    limits = {name: int(s) for name, s in re.findall(r"^(?:ours|step) (\w+) (\d+)", text, re.M)}
    known = {name: int(s) for name, s in re.findall(r"^(\w+)=(\d+)$", text, re.M)}
    assert sorted(limits) == sorted([*STEPS, "tests"])
    assert list(limits)[-1] == "loop"
    left = known["seconds_in_all"] - known["KILL_AFTER"] - known["SUMMARY"] - sum(limits.values())
    assert left + limits["loop"] >= loop.BESIDES_S + 3 * loop.SHORT_S
    assert loop.long_s(str(limits["loop"])) == loop.LONG_S


# --- with steps that fail -------------------------------------------------------------------

FAKE = """#!/bin/sh
case $* in
    *summary*) exec '{python}' "$@" ;;
    *' rounds '*) echo 'no rounds today' >&2; exit 3 ;;
    *' ramp '*) exec sleep 60 ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_a_step_that_fails_or_hangs_stops_nothing(fake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_script(fake, "--at-most", "17", "--out", str(out))
    assert done.returncode == 1
    statuses = outcomes(out)
    assert statuses["events"] == "0"
    assert statuses["rounds"] == "3"
    assert statuses["ramp"] == "124"
    assert {status for name, status in statuses.items() if name not in STEPS[:3]} == {"-"}
    summary = (out / "summary.txt").read_text()
    assert "failed (3)" in summary
    assert "no rounds today" in summary
    assert "stopped at its limit" in summary
    assert "no time left" in summary


def test_an_option_that_there_is_not_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run_script(tmp_path / "none", "--fast")
    assert done.returncode == 2
    assert done.stderr == "gpu.sh: no option --fast; see the top of benchmarks/gpu.sh\n"
