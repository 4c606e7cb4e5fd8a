"""What all verbs have in common: options from the environment."""

from __future__ import annotations

import sys

import pytest

from layerbench import cli


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
    ("words", "variable", "says"),
    [
        ("layerbench sweep", "LAYERBENCH_SWEEP_SECONDS", "--seconds must be positive, got -1"),
        (
            "layerbench estimate training-time",
            "LAYERBENCH_ESTIMATE_TRAINING_TIME_WORKERS",
            "--workers must be at least 0, got -1",
        ),
        ("layerbench detect", "LAYERBENCH_DETECT_MIN_SIZE", "greater than or equal to 1, got -1"),
        ("train.py", "LAYERBENCH_TRAIN_BATCH_SIZE", "--batch_size must be at least 1, got -1"),
    ],
)
def test_an_option_from_the_environment(complaint, words, variable, says):
    assert says in complaint(words, variable, "-1")


def test_the_command_line_comes_first(complaint):
    said = complaint("layerbench sweep --seconds -2", "LAYERBENCH_SWEEP_SECONDS", "-1")
    assert "got -2" in said


def test_help_does_not_repeat_each_name(monkeypatch, capsys):
    for words in (["sweep", "--help"], ["estimate", "detection", "--help"]):
        monkeypatch.setattr(sys, "argv", ["layerbench", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert "LAYERBENCH_" not in capsys.readouterr().out
