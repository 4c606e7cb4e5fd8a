"""What all verbs have in common: options from the environment."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from layerbench import cli
from tests.support.paths import ROOT


@pytest.fixture
def complaint(monkeypatch, capsys):
    """``complaint(words, variable, value)``: what a verb says against a value of a variable."""

    def call(words: str, variable: str, value: str) -> str:
        monkeypatch.setenv(variable, value)
        program, *rest = words.split()
        monkeypatch.setattr(sys, "argv", [program, *rest])
        with pytest.raises(SystemExit) as left:
            cli.main() if program == "layerbench" else cli.run(program.removesuffix(".py"))
        assert left.value.code == 2
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("words", "variable", "value", "says"),
    [
        ("layerbench sweep", "SWEEP_SECONDS", "-1", "must be a number from 0 on, got -1"),
        ("layerbench sweep", "SWEEP_SECONDS", "some", "must be a number, got 'some'"),
        (
            "layerbench estimate training-time",
            "ESTIMATE_TRAINING_TIME_WORKERS",
            "-1",
            "must be at least 0, got -1",
        ),
        ("layerbench detect", "DETECT_MIN_SIZE", "-1", "must be at least 1, got -1"),
        ("train.py", "TRAIN_BATCH_SIZE", "-1", "must be at least 1, got -1"),
        ("timer.py", "TIMER_ITERATIONS", "1.5", "must be a whole number, got '1.5'"),
        ("timer.py", "TIMER_QUIET", "perhaps", "must be True or False, got 'perhaps'"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(complaint, words, variable, value, says):
    variable = f"LAYERBENCH_{variable}"
    assert complaint(words, variable, value) == f"error: {variable} {says}\n"


def test_the_command_line_comes_first(complaint):
    said = complaint("layerbench sweep --seconds -2", "LAYERBENCH_SWEEP_SECONDS", "-1")
    assert "got -2" in said


def test_the_words_of_an_option_are_joined_either_way(complaint):
    for words in ("mem.py --gpu_memory x", "mem.py --gpu-memory x"):
        assert "--gpu-memory cannot read 'x'" in complaint(words, "LAYERBENCH_MEM_SEED", "1")
    for words in ("train.py --batch_size 0", "train.py --batch-size 0", "train.py --batch 0"):
        assert "--batch_size must be" in complaint(words, "LAYERBENCH_TRAIN_SEED", "1")


def test_help_shows_names_and_texts_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for verb in ("", *cli.verbs()):
        monkeypatch.setattr(sys, "argv", ["layerbench", *verb.split(), "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        shown = capsys.readouterr().out
        assert [
            text for text in ("…", "list[", "<class", "<bool>", "Undefined") if text in shown
        ] == []


def test_help_does_not_repeat_each_name(monkeypatch, capsys):
    for words in (["sweep", "--help"], ["estimate", "detection", "--help"]):
        monkeypatch.setattr(sys, "argv", ["layerbench", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert "LAYERBENCH_" not in capsys.readouterr().out


# --- a user's own code ----------------------------------------------------------------------------

SOURCES = ROOT / "tests/faulty" / "sources.py"


def line_of(text: str) -> int:
    lines = SOURCES.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


@pytest.fixture
def called(monkeypatch, capfd):
    """``called(words)``: status, standard output and standard error of a verb in this process."""

    def call(words: str) -> tuple[object, str, str]:
        program, *rest = words.split()
        monkeypatch.setattr(sys, "argv", [program, *rest])
        with pytest.raises(SystemExit) as left:
            cli.main() if program == "layerbench" else cli.run(program.removesuffix(".py"))
        return left.value.code, *capfd.readouterr()

    return call


@pytest.mark.parametrize(
    "words",
    [
        "mem.py --format json",
        "mem.py --struct --format json",
        "mem.py --train --format json",
        "mem.py --device cuda --format json",
        "timer.py --iterations 1 --warmup 0 --format json",
        "layerbench train-profile --iterations 1 --warmup 0 --format json",
    ],
)
def test_what_a_model_prints_is_kept_out_of_the_report(called, words):
    status, out, err = called(f"{words} --model {SOURCES}:talks")
    assert status == 0
    assert json.loads(out)["workload"]["batch"] == 1
    ways = ("the constructor", "Python", "its number", "a C library", "the first stream")
    assert [way for way in ways if f"by {way}\n" not in err] == []


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("mem.py --model {}:mismatch", "at fault"),
        ("mem.py --struct --model {}:mismatch", "at fault"),
        ("mem.py --train --model {}:mismatch", "at fault"),
        ("timer.py --model {}:mismatch", "at fault"),
        ("layerbench train-profile --model {}:mismatch", "at fault"),
        ("layerbench compare --live {0}:mismatch {0}:mismatch", "at fault"),
        ("mem.py --model {}:raises", "line that raises"),
        ("timer.py --model {}:leaves", "line that leaves"),
        ("mem.py --struct --model {}:leaves", "line that leaves"),
    ],
)
def test_an_error_names_the_users_line(called, words, place):
    status, out, err = called(words.format(SOURCES))
    said = err.splitlines()[-1]
    assert (status, out) == (2, "")
    assert said.startswith("error: ")
    assert f"sources.py:{line_of(place)} in" in said
    assert "Traceback" not in err


def test_traceback_shows_all(called, monkeypatch):
    status, _, err = called(f"mem.py --model {SOURCES}:mismatch --traceback")
    assert (status, "Traceback" in err) == (2, True)
    monkeypatch.setenv("LAYERBENCH_TRACEBACK", "1")
    assert "Traceback" in called(f"layerbench mem --model {SOURCES}:mismatch")[2]


def test_what_nobody_expected_is_one_line_too(called, monkeypatch):
    monkeypatch.setattr(
        "layerbench.profilers.structure._record", lambda *_: (_ for _ in ()).throw(KeyError("rows"))
    )
    status, _, err = called("mem.py --struct --model mobilenet_v2")
    assert status == 2
    assert "Traceback" not in err
    assert "error: KeyError: 'rows'" in err


@pytest.mark.parametrize("verb", ["compare", "mem", "view", "estimate training-time"])
def test_every_verb_has_the_option(called, verb):
    assert "--traceback" in called(f"layerbench {verb} --help")[1]


def test_help_is_parted_by_the_terminal_and_not_by_the_source():
    text = """One line.

    Two lines that
    are one.
    """
    assert cli._reflowed(text) == "One line.\n\nTwo lines that are one."
    assert cli._reflowed(None) == ""


def test_a_python_without_the_packages_says_what_to_do() -> None:
    words = [sys.executable, "-S", "-E", "timer.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {sys.executable} has no typer: activate the environment")
