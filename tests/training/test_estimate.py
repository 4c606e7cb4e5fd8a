"""Estimates of training times: what is made of measured steps, and one answer to all who ask."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

import layerbench
from layerbench.analysis.student_t import quantile
from layerbench.environment.devices.cpu import Cpu
from layerbench.records.training_step import STEP_PHASES
from layerbench.service.protocol.questions import Question
from layerbench.service.web.answers import training_time
from layerbench.service.web.tables import Result
from layerbench.service.worker import estimate as worker
from layerbench.training import estimate
from layerbench.training.estimate import DRIFT, Measured, StepFigures, Trial

TEN_MS = 10_000_000


def measured(count: int, *, first: int = 0, data: int = 1, rest: int = 9) -> Measured:
    """Steps of ``data`` + ``rest`` hundredths of a second, the first of which waits longer."""
    step = (data * TEN_MS, 0, rest * TEN_MS, 0, 0, 0)
    begins = ((data + first) * TEN_MS, *step[1:])
    return Measured([begins, *[step] * (count - 1)], [0], [0.5], 0.02 * count, 5)


def test_steps_alike_are_multiplied():
    figures = StepFigures.of(measured(45, first=300))
    assert len(figures.steps) == 40
    assert set(map(sum, figures.steps)) == {10 * TEN_MS}
    assert figures.between_s == pytest.approx(0.02)
    # The loader's beginning and the long first wait, once an epoch; no step was slower than others.
    assert figures.start_s == pytest.approx(0.5 + 3.0)
    assert figures.once_s == pytest.approx(0)
    epoch, total = figures.training(100, 2.0, epochs=3)
    assert epoch.value == pytest.approx(3.5 + 100 * (0.100 + 0.020) + 2.0)
    assert total.value == pytest.approx(3 * epoch.value)
    # Without spread, the machine's drift and the other process are all there is.
    half = math.hypot(quantile(0.95, 7) * DRIFT, 1.96 * math.sqrt(2) * estimate.APART)
    assert epoch.high / epoch.value == pytest.approx(math.exp(half))
    assert epoch.value / epoch.low == pytest.approx(math.exp(half))


def test_a_slow_beginning_counts_once():
    steps = [(0, 0, ten * TEN_MS, 0, 0, 0) for ten in (110, 20, *[10] * 20)]
    figures = StepFigures.of(Measured(steps, [0], [0.0], 0.0, 2))
    assert figures.once_s == pytest.approx(1.10)
    epoch, total = figures.training(50, 0.0, epochs=4)
    assert (epoch.value, total.value) == pytest.approx((5.0, 4 * 5.0 + 1.10))


def test_spread_widens_the_interval(monkeypatch):
    monkeypatch.setattr(estimate, "APART", 0.0)
    rng = np.random.default_rng(0)

    def width(count: int, spread: float) -> float:
        steps = [(0, 0, round(ten * TEN_MS), 0, 0, 0) for ten in rng.normal(10, spread, count)]
        figures = StepFigures.of(Measured(steps, [0], [0.0], 0.0, 0))
        epoch, _ = figures.training(1000, 0.0, epochs=1)
        return math.log(epoch.high / epoch.low)

    assert width(40, 3.0) > width(40, 0.1)
    # A machine that moves from step to step moves less from stretch to stretch.
    assert width(40, 3.0) < 2 * 2 * quantile(0.95, 7) * 0.3


def wandering(rng: np.random.Generator, count: int, lasting: float) -> np.ndarray:
    """Steps of 100 ms of a machine whose speed wanders by 7 %, for about so many steps."""
    keep = math.exp(-1 / lasting)
    state, found = rng.normal(), []
    for _ in range(count):
        state = keep * state + math.sqrt(1 - keep**2) * rng.normal()
        found.append(10 * math.exp(0.07 * state + 0.03 * rng.normal()))
    return np.array(found)


@pytest.mark.parametrize("lasting", [2, 20, 60])
def test_the_interval_holds_the_truth_of_a_machine_that_wanders(lasting, monkeypatch):
    """At least nine in ten, also where it wanders as slowly as the measurement is long."""
    # Both are one process here.
    monkeypatch.setattr(estimate, "APART", 0.0)
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        times = wandering(rng, 160, lasting)
        steps = [(0, 0, round(ten * TEN_MS), 0, 0, 0) for ten in times[:60]]
        figures = StepFigures.of(Measured(steps, [0], [0.0], 0.0, 0))
        epoch, _ = figures.training(100, 0.0, epochs=1)
        held += epoch.low <= times[60:].sum() / 1e2 <= epoch.high
    assert held / 300 >= 0.9


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_another_process_is_apart_however_long_a_step_takes(seconds):
    mean = estimate.mean_time(np.full(50, round(seconds * 1e9)))
    moment = quantile(0.95, 9) * DRIFT
    apart = 1.96 * math.sqrt(2) * estimate.APART
    assert math.log(mean.high / mean.low) / 2 == pytest.approx(math.hypot(moment, apart))


def test_few_steps_do_where_each_takes_long():
    slow = round(2e9 * estimate.SLOW_S)
    trial = Trial(warmup=5, steps=40, seconds=0.0)
    assert [trial.add([[slow]]) for _ in range(3)] == [False, False, True]
    assert trial.measured([]).warmup == estimate.SLOW_WARMUP
    quick = Trial(warmup=1, steps=2, seconds=0.0)
    assert [quick.add([[1]]) for _ in range(3)] == [False, False, True]


# --- one answer to all who ask -------------------------------------------------------------


class Metronome:
    """A clock by which steps take what it says, whatever they do: a mark comes after each phase."""

    def __init__(self) -> None:
        self.now_ns = self.marks = 0

    def mark(self) -> int:
        """One mark more; the machine is faster and slower by the step."""
        step, phase = divmod(self.marks, len(STEP_PHASES) + 1)
        self.marks += 1
        name = "" if phase == 0 else STEP_PHASES[phase - 1]
        self.now_ns += (20 + step % 3) * {"forward": 3, "backward": 5}.get(name, 0) * 1_000_000
        return self.now_ns

    def resolve(self, marks):
        """The marks themselves."""
        return list(marks)

    def reserve(self, marks=0):
        """Nothing to reserve, to wait for, or to give back."""

    synchronize = release = reserve


@pytest.fixture
def metronome(monkeypatch):
    """Each measurement begins with a clock of its own."""
    began: list[Metronome] = []

    def clock(_: Cpu) -> Metronome:
        began.append(Metronome())
        return began[-1]

    monkeypatch.setattr(Cpu, "clock", clock)
    now = SimpleNamespace(perf_counter=lambda: max((one.now_ns for one in began), default=0) / 1e9)
    monkeypatch.setattr(estimate, "time", now)
    return began


def test_the_verb_and_the_service_have_one_answer(metronome):
    """The same training, as many steps measured by the same clock: the same time, as sure."""
    model, size, images, epochs = "timm:test_resnet", (32, 32), 100, 3
    seconds = 2.5
    by_verb = layerbench.estimate_training_time(
        model, size=size, batch=2, samples=images, epochs=epochs, device="cpu",
        warmup=worker.WARMUP, steps=worker.FEWEST, seconds=seconds,
    )  # fmt: skip
    metronome.clear()
    question = Question(
        task_type="classification",
        architecture=model,
        batch_size=2,
        image_size=size,
        dataset_size=images,
        epochs=epochs,
    )
    measured = worker.measure(question, "cpu", seconds)
    stored = Result("key", question.model_dump(), measured.model_dump(mode="json"), 0.0)
    by_service = training_time(stored, question, None)
    # More than the fewest: the seconds decided, in the same step.
    assert worker.FEWEST < measured.steps == by_verb.step.n
    assert by_verb.step.mean == pytest.approx(0.168, rel=0.05)
    assert by_service["Total Training Time"] == pytest.approx(by_verb.total.value)
    interval = by_service["about"]["interval"]["Total Training Time"]
    assert interval == pytest.approx([by_verb.total.low, by_verb.total.high])
    forward, backward = (
        next(phase.time.mean for phase in by_verb.phases if phase.name == name)
        for name in ("forward", "backward")
    )
    parts = by_service["parts"]
    assert (parts["forward_pass"], parts["backward_pass"]) == pytest.approx((forward, backward))
