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

import pytest

from layerbench import cli
from tests.support.paths import ROOT

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
