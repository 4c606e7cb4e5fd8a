"""The command line as a user meets it: files, statuses, and, where they matter, processes, signals.

Starting a process takes longer than what it does here: what a process of its own does not change is
asked in this one.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbench import cli
from layerbench.records.workload import Plan
from layerbench.store import reading
from tests.support.paths import ROOT
from tests.support.prepared import start_script

TIMER = [sys.executable, str(ROOT / "timer.py")]
QUICK = [
    *("--model", "tests/models.py:small", "--i", "2x3x16x16", "--device", "cpu"),
    *("--threads", "1", "--warmup", "1", "--iterations", "3"),
]


def timer(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TIMER, *arguments], cwd=ROOT, capture_output=True, text=True, check=check
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``here(*arguments)``: the same in this process; what it printed."""

    def call(*arguments: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [TIMER[1], *arguments])
        with pytest.raises(SystemExit) as left:
            cli.run("timer")
        shown = capsys.readouterr()
        assert left.value.code == 0, shown.err
        return shown.out

    return call


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``refused(status, *arguments)``: it ends with that status; what it said on stderr."""

    def call(status: int, *arguments: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [TIMER[1], *arguments])
        with pytest.raises(SystemExit) as left:
            cli.run("timer")
        shown = capsys.readouterr()
        assert left.value.code == status
        assert shown.out == ""
        return shown.err

    return call


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_without_out_the_report_goes_to_the_terminal() -> None:
    done = timer(*QUICK, "--sentences")
    assert "Average execution time for Small with input shape [2, 3, 16, 16] is" in done.stdout
    assert "Average execution time for ResidualBlock at position 2" in done.stdout
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_out_holds_a_whole_and_a_layers_report_in_each_format(
    here: Callable[..., str], tmp_path: Path
) -> None:
    out = here(*QUICK, "--out", str(tmp_path), "--format", "txt,json,csv", "--keep-samples")
    device = next(tmp_path.iterdir()).name
    base = "tests-models-small_2x3x16x16_1-thread"
    written = files(tmp_path)
    assert {re.sub(r"^[^/]*/", "", name) for name in written} >= {
        *(f"{base}.{suffix}" for suffix in ("txt", "json", "csv")),
        *(f"layers/{base}.{suffix}" for suffix in ("txt", "json", "csv", "npz")),
    }
    assert [Path(line).name for line in out.splitlines()]
    whole = reading.read(tmp_path / device / f"{base}.json")
    layers = reading.read(tmp_path / device / "layers" / f"{base}.json")
    assert whole.layers == ()
    assert layers.layers
    assert whole.whole == layers.whole
    assert whole.reconciliation == layers.reconciliation


def test_the_studys_short_flags(here: Callable[..., str]) -> None:
    assert "Blocks" not in here(*QUICK, "--w", "True")
    assert "Blocks" in here(*QUICK, "--w", "False")


def test_a_model_that_brings_its_inputs(here: Callable[..., str]) -> None:
    arguments = ["--model", "tests.models:small_with_input", *QUICK[4:]]
    assert "[2, 3, 16, 16]" in here(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "resnet5o"], "did you mean resnet50"),
        (["--model", "tests/models.py:smal"], "small"),
        (["--model", "tests/models.py:no_module"], "torch.nn.Module"),
        (["--model", "nowhere.py:make"], "nowhere.py"),
        (["--model", "timm:resnet5o"], "resnet50"),
        (["--i", "2x5x16x16"], "Conv2d at stem, given [2, 5, 16, 16]"),
        (["--i", "pasca"], "pascal"),
        (["--device", "abacus"], "--device cpu"),
        (["--iterations", "0"], "--iterations must be at least 1"),
        (["--batch", "0"], "batch"),
        (["--until", "soon"], "soon"),
        (["--format", "docx"], "docx"),
        (["--mode", "test"], "--mode takes eval, train"),
        (["--i", "9999999x3x9999x9999"], "free"),
        (["--keep-samples"], "--out"),
        (["--out", "setup.sh/reports"], "setup.sh"),
        (["--cuda-graph"], "cpu has no such graphs"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    refused: Callable[..., str], arguments: list[str], says: str, tmp_path: Path
) -> None:
    out = [] if "--out" in arguments or "--keep-samples" in arguments else ["--out", str(tmp_path)]
    said = refused(2, *QUICK, *out, *arguments)
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert files(tmp_path) == set()


def test_an_unknown_option_is_status_2_without_a_traceback() -> None:
    done = timer("--modle", "resnet50", check=False)
    assert done.returncode == 2
    assert "--model" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_that_it_does_not_show() -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = [{str(ROOT / 'timer.py')!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as done:\n"
        "    assert not done.code, done.code\n"
        "print('LOADED', *{'torch', 'click', 'markdown_it', 'pygments'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("LOADED\n")
    assert "--iterations" in done.stdout


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def signalled_while_measuring(out: Path, signal_number: int) -> int:
    """Start an endless run on a terminal, signal it amid its rounds, and give its status."""
    leader, follower = pty.openpty()
    arguments = (*QUICK, "--iterations", "1000000", "--out", str(out))
    process = start_script("timer.py", *arguments, err=Path(os.ttyname(follower)))
    seen = b""
    while b"measuring" not in seen:  # the progress bar tells when the rounds run
        seen += os.read(leader, 4096)
    time.sleep(2)  # some rounds, on a busy machine too
    os.kill(process.pid, signal_number)
    process.join(60)
    os.close(follower)
    os.close(leader)
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_cut_short_leaves_earlier_reports_and_its_own_beside_them(
    here: Callable[..., str], signal_number: int, status: int, tmp_path: Path
) -> None:
    here(*QUICK, "--out", str(tmp_path))
    before = contents(tmp_path)
    assert before
    assert signalled_while_measuring(tmp_path, signal_number) == status
    after = contents(tmp_path)
    partial = {path: text for path, text in after.items() if "_partial" in path.name}
    assert {path: text for path, text in after.items() if path not in partial} == before
    assert len(partial) == (len(before) if signal_number == signal.SIGINT else 0)
    for path, text in partial.items():
        if path.suffix == ".txt":
            assert b"Interrupted after" in b"".join(text.splitlines()[2:7])
        elif path.suffix == ".json":
            assert reading.read(path).stop == "interrupted"


def test_function_forwards_follow_the_iterations(here: Callable[..., str], tmp_path: Path) -> None:
    assert Plan(iterations=5).function_iterations == 5
    assert Plan(iterations=300).function_iterations == 30
    here(*QUICK, "--function-iterations", "1", "--out", str(tmp_path))
    path = next(tmp_path.glob("*/layers/*.json"))
    assert reading.read(path).plan.function_iterations == 1
    assert "1 forward for functions" in path.with_suffix(".txt").read_text(encoding="utf-8")


def test_quiet_shows_no_bar_on_a_terminal() -> None:
    leader, follower = pty.openpty()
    process = start_script("timer.py", *QUICK, "--quiet", err=Path(os.ttyname(follower)))
    process.join()
    assert process.exitcode == 0
    os.write(follower, b"end")
    assert os.read(leader, 4096) == b"end"
    os.close(leader)
    os.close(follower)


def test_strict_says_why_and_writes_nothing(refused: Callable[..., str], tmp_path: Path) -> None:
    # More threads than any machine's cores is a fault of the room that a test can arrange.
    said = refused(1, *QUICK, "--threads", "4096", "--strict", "--out", str(tmp_path))
    assert "--strict" in said
    assert len(said.strip().splitlines()) == 1
    assert files(tmp_path) == set()


def test_the_record_says_what_ran(here: Callable[..., str], tmp_path: Path) -> None:
    here(*QUICK, "--dtype", "bfloat16", "--channels-last", "--seed", "3", "--out", str(tmp_path))
    (record,) = (p for p in tmp_path.rglob("*.json") if p.parent.name != "layers")
    content = json.loads(record.read_text())
    assert content["workload"]["dtype"] == "bfloat16"
    assert content["workload"]["memory_format"] == "channels_last"
    assert content["plan"]["iterations"] == 3
    assert content["environment"]["machine"]["threads"] == 1
    assert content["environment"]["command"].startswith("timer.py --model tests/models.py:small")
    assert str(tmp_path) not in record.read_text()
    assert "bfloat16" in record.name
    assert "channels-last" in record.name
