"""``layerbench compare`` and ``check`` as a user meets them: files, statuses, complaints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerbench import cli, reporters, units
from layerbench.cli import check
from layerbench.errors import UntrustedError
from layerbench.instruments.waiting import Unknown
from layerbench.records.comparison import Comparison
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.store import reading, writing
from tests.support.paths import ROOT
from tests.support.sample_bundles import whole
from tests.support.sample_comparisons import measured
from tests.support.sample_profiles import layered

SMALL = "tests/models.py:small --i 2x3x16x16 --device cpu --threads 1"
FEW = ("--iterations", "12", "--warmup", "1", "--quiet")


@pytest.fixture
def layerbench(monkeypatch, capsys):
    """``layerbench(*arguments)``: exit status, what was printed, what was complained about."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["layerbench", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


@pytest.fixture
def saved(tmp_path):
    """``saved(name, profile)``: the path of its record."""

    def save(name: str, profile: Profile) -> str:
        path = tmp_path / name
        writing.write_text(path, reporters.render("json", profile))
        return str(path)

    return save


# --- two files ------------------------------------------------------------------------------


def test_the_status_says_whether_anything_is_slower(layerbench, saved):
    same, slow = saved("a.json", measured()), saved("b.json", measured({"features.1": 1.4}))
    status, out, err = layerbench("compare", same, same)
    assert (status, err) == (0, "")
    assert "The whole model is SAME" in out
    status, out, _ = layerbench("compare", same, slow)
    assert status == 1
    assert "1 SLOWER" in out
    status, out, _ = layerbench("compare", slow, same)
    assert status == 0  # faster is no failure
    assert "1 FASTER" in out
    assert layerbench("compare", same, slow, "--threshold", "60%")[0] == 0


def test_of_joined_records_the_times_are_compared_and_what_both_hold_is_noted(
    layerbench, saved, tmp_path
):
    first = whole()
    peak = first.memory.peak.model_copy(update={"bytes": 5 * 2**20})
    memory = first.memory.model_copy(update={"peak": peak})
    joined = str(first.save(tmp_path / "a"))
    other = str(first.model_copy(update={"memory": memory}).save(tmp_path / "b"))
    status, out, err = layerbench("compare", joined, other)
    assert (status, err) == (0, "")
    notes = out.partition("\nNotes\n")[2]
    assert "Peak of tensors in memory: 4.00 MiB in the baseline, 5.00 MiB in the" in notes
    assert "contender, +25.0 %." in " ".join(notes.split())
    assert f"FLOPs of a forward: {units.count(first.structure.flops, short=True)} in both" in notes
    status, out, _ = layerbench("compare", joined, saved("c.json", first.profile))
    assert (status, "Only the times are compared: one of the" in out) == (0, True)
    alone = str(first.model_copy(update={"profile": None}).save(tmp_path / "d"))
    status, _, err = layerbench("compare", joined, alone)
    assert (status, "holds a bundle record, not a profile" in err) == (2, True)


def test_of_a_joined_record_check_repeats_the_times(tmp_path):
    path = whole().save(tmp_path / "a")
    record, plan = check._what_to_repeat(path, 7, None)
    assert (record, plan.iterations) == (whole().profile, 7)


def test_every_format_and_a_folder(layerbench, saved, tmp_path):
    path = saved("a.json", measured())
    formats = "txt,md,csv,json,html"
    status, out, _ = layerbench("compare", path, path, "--format", formats, "--out", str(tmp_path))
    assert status == 0
    names = [Path(line).name for line in out.splitlines()]
    stem = "comparison_tiny_2x3x32x32"  # once: both sides ran the same
    assert names == [f"{stem}.{suffix}" for suffix in formats.split(",")]
    assert isinstance(reading.read(tmp_path / f"{stem}.json"), Comparison)


def damaged(kind: str) -> str:
    text = reporters.render("json", layered())
    content = json.loads(text)
    if kind == "cut short":
        return text[: len(text) // 2]
    if kind == "not JSON":
        return "Average execution time for TinyNet"
    if kind == "schema_version 99":
        content["schema_version"] = 99
    elif kind == "whole.median":
        content["whole"]["median"] = "fast"
    elif kind == "layers.1.inclusive: min, p5":
        content["layers"][1]["inclusive"]["p25"] = 1.0
    elif kind == "layers.2.self: the mean":
        content["layers"][2]["self"]["mean"] = -1.0
    elif kind == "whole.std":
        content["whole"]["std"] = float("nan")
    elif kind == "no layerbench record":
        content = {"times": [1, 2, 3]}
    elif kind == "not a profile":
        return (ROOT / "model_structures" / "resnet18_pascal.json").read_text(encoding="utf-8")
    return json.dumps(content)


@pytest.mark.parametrize(
    "kind",
    [
        "cut short",
        "not JSON",
        "schema_version 99",
        "whole.median",
        "layers.1.inclusive: min, p5",
        "layers.2.self: the mean",
        "whole.std",
        "no layerbench record",
        "not a profile",
    ],
)
@pytest.mark.parametrize("place", ["baseline", "contender"])
def test_a_damaged_file_is_named_in_one_line(layerbench, saved, tmp_path, kind, place):
    bad, good = tmp_path / "bad.json", saved("good.json", layered())
    bad.write_text(damaged(kind), encoding="utf-8")
    pair = (str(bad), good) if place == "baseline" else (good, str(bad))
    status, out, err = layerbench("compare", *pair)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert str(bad) in err
    assert kind in err


def test_different_work_has_status_2(layerbench, saved):
    record = layered()
    other = record.workload.model_copy(update={"model": "resnet18"})
    one = saved("one.json", record)
    two = saved("two.json", record.model_copy(update={"workload": other}))
    status, _, err = layerbench("compare", one, two)
    assert status == 2
    assert err == (
        f"error: {one} measured tiny on 2x3x32x32 and {two} resnet18 on 2x3x32x32: only "
        "measurements of the same model and input can be compared; versions of one model under two "
        "names, with --same-model (same_model=True)\n"
    )
    status, out, _ = layerbench("compare", one, two, "--same-model")
    assert (status, one in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.json", "none.json"), "there is no record none.json"),
        (("resnet18", "resnet34"), "there is no record resnet18; to measure two models, add"),
        (("a", "b", "--format", "pdf"), "unknown format 'pdf'"),
        (("a", "b", "--format", "trace"), "for time profiles and training steps only"),
        (("a", "b", "--threshold", "much"), "much"),
        (("--live", "nosuchnet", "resnet18"), "nosuchnet"),
        (("--live", "resnet18 --out x", "resnet18"), "--out is not for one side"),
        (("--live", "resnet18 --i 1x3x64x64", "resnet18"), "give both the same --input"),
        (("--live", 'resnet18 "', "resnet18"), "cannot read"),
        (("--live", "resnet18", "resnet18", "--iterations", "9"), "at least 10"),
        (("--live", "resnet18 --threads 0", "resnet18"), "--threads must be at least 1"),
        (("a.json", "b.json", "--out", "/proc/none"), "cannot write"),
    ],
)
def test_what_cannot_be_meant(layerbench, arguments, says):
    status, _, err = layerbench("compare", *arguments)
    assert status == 2
    assert says in err


def test_two_records_are_compared_without_torch(saved):
    path = saved("a.json", measured())
    code = (
        "import sys\n"
        f"sys.argv = ['layerbench', 'compare', {path!r}, {path!r}]\n"
        "from layerbench.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


# --- in turn --------------------------------------------------------------------------------


@pytest.fixture
def nothing_waits(monkeypatch):
    """As on a machine whose cores are free."""
    monkeypatch.setattr("layerbench.profilers.rounds.wait_meter", lambda _: Unknown())


def test_live_finds_a_planted_slow_down(layerbench, nothing_waits):
    """The same model, and one whose second block computes three times as much."""
    slow = SMALL.replace(":small", ":slow_small")
    rounds = ("--iterations", "75", "--warmup", "1", "--quiet")
    status, out, _ = layerbench("compare", "--live", SMALL, slow, *rounds, "--format", "json")
    found = Comparison.model_validate_json(out)
    assert status == 1
    rows = {row.path: row for row in found.rows}
    assert rows["blocks.1"].verdict == "SLOWER"
    assert rows["blocks.1"].ratio > 2
    assert found.method == "live, one process"
    assert found.contender.environment.machine.threads == 1
    assert any(row.kind == "function" for row in found.rows)


@pytest.mark.slow
def test_live_in_processes_of_their_own(layerbench):
    status, out, _ = layerbench(
        "compare", "--live", SMALL, f"{SMALL} --dtype float64", *FEW, "--processes", "2",
        "--format", "json",
    )  # fmt: skip
    found = Comparison.model_validate_json(out)
    assert status in (0, 1)
    assert (found.method, found.baseline.processes) == ("live, processes", 2)
    assert [(d.where, d.what) for d in found.differences] == [("workload", "dtype")]


def test_a_busy_machine_is_not_taken_for_a_slow_down(layerbench, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise UntrustedError("--strict: the load is 7")

    monkeypatch.setattr("layerbench.profilers.paired.check_environment", refuse)
    status, _, err = layerbench("compare", "--live", SMALL, SMALL, *FEW, "--strict")
    assert (status, err) == (2, "error: --strict: the load is 7\n")


# --- check ----------------------------------------------------------------------------------


def test_check_measures_the_record_again(layerbench, tmp_path):
    spec = ("--model", "tests/models.py:small", "--i", "2x3x16x16", "--device", "cpu")
    plan = ("--threads", "1", "--warmup", "1", "--iterations", "5")
    layerbench("timer", *spec, *plan, "--out", str(tmp_path), "--format", "json")
    record = next(tmp_path.glob("*/layers/*.json"))
    status, out, _ = layerbench("check", str(record), "--quiet", "--format", "json")
    found = Comparison.model_validate_json(out)
    assert status in (0, 1)
    assert found.contender.plan == found.baseline.plan
    assert (found.baseline.name, found.contender.name) == (str(record), "now")
    assert found.method == "one process"
    assert found.rows


def test_check_names_what_it_needs(layerbench, saved):
    assert "name one record" in layerbench("check")[2]
    own = layered()
    own = own.model_copy(update={"workload": own.workload.model_copy(update={"weights": "own"})})
    status, _, err = layerbench("check", saved("own.json", own))
    assert status == 2
    assert "module object" in err


def test_static_names_the_report_that_says_something_else(layerbench, tmp_path):
    source = ROOT / "model_structures" / "mobilenet_v2_pascal.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    content["rows"][3]["output_bytes"] += 4
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    shutil.copy(source, good)
    writing.write_text(bad, reporters.render("json", Structure.model_validate(content)))
    status, out, _ = layerbench("check", "--static", str(tmp_path))
    assert status == 1
    lines = out.splitlines()
    assert lines[-1] == "1 of 2 reports say what comes out here"
    assert len(lines) == 2
    assert lines[0].startswith(f"{bad}: says {{")
    (tmp_path / "good.txt").write_text("hand-edited\n", encoding="utf-8")
    bad.unlink()
    status, out, _ = layerbench("check", "--static", str(good))
    assert status == 1
    assert "good.txt is not what the record renders to" in out


def test_static_fails_for_no_report_that_another_torch_made(layerbench, tmp_path, monkeypatch):
    source = ROOT / "model_structures" / "mobilenet_v2_pascal.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    content["torch"] = "2.4.0"
    content["rows"][3]["output_bytes"] += 4
    path = tmp_path / "older.json"
    writing.write_text(path, reporters.render("json", Structure.model_validate(content)))
    status, out, _ = layerbench("check", "--static", str(path))
    assert status == 0
    assert out.splitlines() == [
        f"{path}: made with torch 2.4.0: not compared",
        "0 of 1 reports say what comes out here; 1 of another torch not compared",
    ]

    # Of the usual folders those that are there; in a project of one's own there may be none.
    monkeypatch.chdir(tmp_path)
    status, _, err = layerbench("check", "--static")
    assert (status, err.partition(":")[2][:22]) == (2, " there is no folder st")
    (tmp_path / "stats").mkdir()
    path.rename(tmp_path / "stats" / path.name)
    assert layerbench("check", "--static")[1].splitlines() == [
        "stats/older.json: made with torch 2.4.0: not compared",
        "0 of 1 reports say what comes out here; 1 of another torch not compared",
    ]
