"""How long a training will take: what is made of measured steps, and the command."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import layerbench
from layerbench import cli
from layerbench.errors import UsageError
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_step import STEP_PHASES
from layerbench.store.reading import read
from layerbench.training import extrapolation
from tests.support.paths import ROOT

READER = "tests/models.py:digit_reader"
MS = 1_000_000


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def measured(count: int, *, first: int = 0, data: int = 1, rest: int = 9) -> extrapolation.Measured:
    """Steps of ``data`` + ``rest`` milliseconds, the first with a longer wait for data."""
    step = (data * MS, 0, rest * MS, 0, 0, 0)
    begins = ((data + first) * MS, *step[1:])
    return extrapolation.Measured([begins, *[step] * (count - 1)], [0], [0.5], 0.02 * count)


def test_steps_alike_are_multiplied():
    figured = extrapolation.Figured.of(measured(45, first=300), warmup=5)
    assert len(figured.steps) == 40
    assert set(map(sum, figured.steps)) == {10 * MS}
    assert figured.between_s == pytest.approx(0.02)
    # The loader's beginning and the long first wait, once an epoch; no step was slower than others.
    assert figured.start_s == pytest.approx(0.5 + 0.3)
    assert figured.once_s == pytest.approx(0)
    epoch, total = extrapolation.extrapolated(figured, 100, validation_s=2.0, epochs=3)
    assert epoch.value == pytest.approx(0.8 + 100 * (0.010 + 0.020) + 2.0)
    assert total.value == pytest.approx(3 * epoch.value)
    # Without spread, the machine's drift is all there is.
    half = extrapolation.quantile(0.95, 7) * extrapolation.DRIFT
    assert epoch.high / epoch.value == pytest.approx(math.exp(half))
    assert epoch.value / epoch.low == pytest.approx(math.exp(half))


def test_a_slow_beginning_counts_once():
    steps = [(0, 0, ms * MS, 0, 0, 0) for ms in (110, 20, *[10] * 20)]
    figured = extrapolation.Figured.of(extrapolation.Measured(steps, [0], [0.0], 0.0), warmup=2)
    assert figured.once_s == pytest.approx(0.110)
    epoch, total = extrapolation.extrapolated(figured, 50, 0.0, epochs=4)
    assert (epoch.value, total.value) == pytest.approx((0.5, 4 * 0.5 + 0.110))


def test_spread_widens_the_interval():
    rng = np.random.default_rng(0)

    def width(count: int, spread: float) -> float:
        steps = [(0, 0, round(ms * MS), 0, 0, 0) for ms in rng.normal(10, spread, count)]
        figured = extrapolation.Figured.of(extrapolation.Measured(steps, [0], [0.0], 0.0), warmup=0)
        epoch, _ = extrapolation.extrapolated(figured, 1000, 0.0, epochs=1)
        return math.log(epoch.high / epoch.low)

    assert width(40, 3.0) > width(40, 0.1)
    # A machine that moves from step to step moves less from stretch to stretch.
    assert width(40, 3.0) < 2 * 2 * extrapolation.quantile(0.95, 7) * 0.3


def wandering(rng: np.random.Generator, count: int, lasting: float) -> np.ndarray:
    """Steps of 10 ms of a machine whose speed wanders by 7 %, for about so many steps."""
    keep = math.exp(-1 / lasting)
    state, found = rng.normal(), []
    for _ in range(count):
        state = keep * state + math.sqrt(1 - keep**2) * rng.normal()
        found.append(10 * math.exp(0.07 * state + 0.03 * rng.normal()))
    return np.array(found)


@pytest.mark.parametrize("lasting", [2, 20, 60])
def test_the_interval_holds_the_truth_of_a_machine_that_wanders(lasting):
    """At least nine in ten, also where it wanders as slowly as the measurement is long."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        times = wandering(rng, 160, lasting)
        steps = [(0, 0, round(ms * MS), 0, 0, 0) for ms in times[:60]]
        figured = extrapolation.Figured.of(extrapolation.Measured(steps, [0], [0.0], 0.0), warmup=0)
        epoch, _ = extrapolation.extrapolated(figured, 100, 0.0, epochs=1)
        held += epoch.low <= times[60:].sum() / 1e3 <= epoch.high
    assert held / 300 >= 0.9


def test_a_forecast_on_digits():
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
    # Two steps an epoch of the set: three epochs of them.
    assert (found.warmup, found.step.n) == (1, 5)
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
        (("--format", "trace"), "time profiles only"),
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
