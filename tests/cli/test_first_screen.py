"""What a terminal shows of a report, and what a pipe and a file have."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerbench import cli, reporters
from layerbench.api.timing import Measurement
from layerbench.records.view import View
from tests.support.every_kind import RECORDS
from tests.support.paths import ROOT
from tests.support.sample_bundles import whole
from tests.support.sample_profiles import layered

(RECORD,) = (ROOT / "stats").glob("*/layers/mobilenet_v2_pascal.json")
TEXT = RECORD.with_suffix(".txt").read_text(encoding="utf-8")


def on_terminal(columns: int, *options: str) -> list[str]:
    """The lines that a terminal of so many columns shows of the committed record."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    words = [sys.executable, "-m", "layerbench", "export", str(RECORD), "--format", "txt"]
    done = subprocess.run(
        [*words, "--rows", "blocks", *options],
        cwd=ROOT,
        env=environment,
        stdout=follower,
        stderr=subprocess.PIPE,
        check=True,
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # the end of a terminal that nobody writes to any more
        pass
    os.close(leader)
    if "--full" not in options:
        assert done.stderr.decode() == "the first screen of the report: --full shows all of it\n"
    return shown.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_the_first_screen_in_its_own_width(columns: int) -> None:
    lines = on_terminal(columns)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("Slowest: features.2.conv.0.0 (Conv2d)") for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_a_pipe_has_all_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["layerbench", "export", str(RECORD), "--format", "txt", "--rows", "blocks"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (TEXT, "")


# Of each verb that prints a report: its words, what measures, and the kind of its record.
VERBS = {
    "timer": (["mobilenet_v2"], "layerbench.api.timing.measure", "profile"),
    "profile": (["mobilenet_v2"], "layerbench.api.bundle.with_structure_and_memory", "bundle"),
    "mem": (["mobilenet_v2"], "layerbench.cli.mem._measured", "memory"),
    "mem --struct": (["mobilenet_v2"], "layerbench.cli.mem._structure", "structure"),
    "mem --predict": (["mobilenet_v2"], "layerbench.cli.mem._estimate", "memory estimate"),
    "train-profile": ([], "layerbench.api.training.profile_training", "training profile"),
    "sweep": ([], "layerbench.api.sweep.sweep", "sweep"),
    "compare": (["a.json", "b.json"], "layerbench.cli.compare._of_files", "comparison"),
    "check": ([str(RECORD)], "layerbench.cli.check._measured_again", "comparison"),
    "estimate training-time": (
        [],
        "layerbench.api.training.estimate_training_time",
        "training forecast",
    ),
    "estimate detection": (
        [],
        "layerbench.training.detection.estimate.estimate_detectors",
        "detection estimates",
    ),
    "detect": ([], "layerbench.training.detection.run.run_detection", "detection run"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_with_a_report_shows_its_first_screen_and_all_of_it_with_full(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, measures, kind = VERBS[verb]
    record = {"profile": layered, "bundle": whole, **RECORDS}[kind]()
    timed = Measurement(layered(), ())
    made = {"timer": timed, "detect": SimpleNamespace(record=record)}.get(verb, record)
    monkeypatch.setattr("layerbench.api.timing.measure", lambda *_, **__: timed)
    monkeypatch.setattr(measures, lambda *_, **__: made)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "90")
    screen = reporters.render("screen", record, View(width=90))
    whole_report = reporters.render("txt", record)
    says = "the first screen of the report: --full shows all of it\n"
    for is_terminal, more, out, err in (
        (True, [], screen, says),
        (True, ["--full"], whole_report, ""),
        (False, [], whole_report, ""),
    ):
        monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "argv", ["layerbench", *verb.split(), *words, "--quiet", *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == (kind == "comparison")  # in which something is slower
        assert capsys.readouterr() == (out, err)


def test_sentences_are_a_file_beside_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    quick = ["--device", "cpu", "--threads", "1", "--warmup", "0", "--iterations", "2"]
    model = ["--model", "tests/models.py:small", "--i", "2x3x16x16"]
    monkeypatch.setattr(
        sys, "argv", ["timer.py", *model, *quick, "--sentences", "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit):
        cli.run("timer")
    said = next(tmp_path.glob("*/layers/*.sentences.txt")).read_text(encoding="utf-8")
    assert "Average execution time for ResidualBlock at position 2" in said
    report = next(tmp_path.glob("*/layers/*1-thread.txt")).read_text(encoding="utf-8")
    assert len(re.findall("Average execution time", report)) == 1  # of the whole model
    capsys.readouterr()
