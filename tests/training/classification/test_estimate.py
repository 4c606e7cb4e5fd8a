"""How long a training will take: what is made of measured steps, and the command."""

from __future__ import annotations

import sys

import pytest

import layerbench
from layerbench import cli
from layerbench.errors import UsageError
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_step import STEP_PHASES
from layerbench.store.reading import read
from tests.support.paths import ROOT

READER = "tests/models.py:digit_reader"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_an_estimate_on_digits():
    found = layerbench.estimate_training_time(
        READER, data="digits", size=(8, 8), batch=32, epochs=2, device="cpu", threads=1, steps=10,
        seconds=0,
    )  # fmt: skip
    assert (found.samples, found.val_samples) == (1438, 359)
    assert (found.steps, found.val_steps) == (44, 12)
    assert (found.warmup, found.step.n) == (5, 10)
    phases = {phase.name: phase.time.mean for phase in found.phases}
    assert list(phases) == list(STEP_PHASES)
    assert sum(phases.values()) == pytest.approx(found.step.mean, rel=1e-6)
    epoch = (
        found.start_s
        + found.steps * (found.step.mean + found.between_s)
        + found.val_steps * found.validation_step_s
    )
    assert found.epoch.value == pytest.approx(epoch, rel=1e-6)
    assert found.total.value == pytest.approx(2 * epoch + found.once_s, rel=1e-6)
    assert found.epoch.low < found.epoch.value < found.epoch.high
    assert any("359 images are validated" in line for line in found.assumptions)


def test_more_steps_than_the_set_has():
    found = layerbench.estimate_training_time(
        READER, data="digits", size=(8, 8), batch=500, samples=50_000, device="cpu", steps=4,
        warmup=1, seconds=0,
    )  # fmt: skip
    # Two steps an epoch of the set: two epochs, and the first step of a third.
    assert (found.warmup, found.step.n) == (1, 4)
    assert (found.steps, found.val_steps, found.validation_step_s) == (100, 0, None)
    assert "Nothing is validated." in found.assumptions


def test_fewer_images_than_a_batch():
    with pytest.raises(UsageError, match="4 images are fewer than one batch of 8"):
        layerbench.estimate_training_time(READER, data="digits", size=(8, 8), samples=4)


@pytest.fixture
def verb(monkeypatch, capsys):
    def call(*arguments: object):
        command = ["layerbench", "estimate", "training-time", *map(str, arguments), "--quiet"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_verb(verb, tmp_path):
    common = ("--model", READER, "--size", "16", "--device", "cpu", "--threads", "1")
    common += (
        "--samples",
        "50000",
        "--epochs",
        "3",
        "--batch",
        "8",
        "--steps",
        "6",
        "--seconds",
        "0.5",
    )
    status, out, err = verb(*common)
    assert (status, err) == (0, "")
    assert "How long training tests/models.py:digit_reader on synthetic will take" in out
    assert "The images are made up as they are asked for" in out
    assert "for 6250 steps" in out.replace(",", "")
    status, out, _ = verb(*common, "--out", tmp_path)
    assert status == 0
    (path,) = tmp_path.glob("*/training-time_tests-models-digit_reader_synthetic_16x16_b8.json")
    assert isinstance(read(path), TrainingEstimate)


def test_what_cannot_be_meant(verb):
    for arguments, says in (
        (("--steps", "1"), "--steps must be at least 2"),
        (("--warmup", "-1"), "--warmup must be at least 0"),
        (("--model", "resnet19"), "did you mean"),
        (("--data", "mnist"), "no data set 'mnist'"),
        (("--format", "speedscope"), "time profiles only"),
        (("--batch", "0"), "--batch_size must be at least 1"),
    ):
        status, out, err = verb(*arguments)
        assert (status, out) == (2, "")
        assert says in err


def test_help_of_the_group(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["layerbench", "estimate", "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert "training-time" in capsys.readouterr().out
