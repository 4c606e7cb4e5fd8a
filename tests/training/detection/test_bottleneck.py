"""What a step waits for: planted shares, a loader that is slow indeed, and settings that help."""

from __future__ import annotations

import os
import time

import pytest
import torch

from layerbench.datasets import boxed
from layerbench.datasets.boxed import BoxedSplits
from layerbench.datasets.source import Numbered
from layerbench.errors import DataError
from layerbench.instruments.step_timer import TimedStep
from layerbench.profilers.progress import Silent
from layerbench.records.detection_run import BOTTLENECKS, TunePoint
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.training_step import STEP_PHASES
from layerbench.training.detection import models, run
from layerbench.training.detection.bottleneck import judge
from layerbench.training.detection.config import RunOptions
from layerbench.training.detection.loader_tuning import Setting, chosen, settings, tune
from layerbench.training.detection.step import Stepped
from tests.support.sample_profiles import summary
from tests.support.small_detectors import built_small

# --- planted shares ------------------------------------------------------------------------


def phases(**seconds: float) -> dict[str, float]:
    return {name: seconds.get(name, 0.0) for name in STEP_PHASES}


PLANTED = {
    "data": (phases(data=6, copy=1, forward=2, backward=1), 0.5, (0.6, 0.1, 0.15, 0.15)),
    "copy": (phases(data=1, copy=6, forward=2, optimizer=1), 1.0, (0.1, 0.6, 0.0, 0.3)),
    "launch": (phases(data=1, copy=1, forward=4, backward=4), 0.25, (0.1, 0.1, 0.6, 0.2)),
    "compute": (phases(data=1, copy=1, forward=4, loss=1, backward=3), 0.75, (0.1, 0.1, 0.2, 0.6)),
}
ADVICE = {
    ("data", True): "let further processes load (num_workers)",
    ("data", False): "let further processes load (num_workers)",
    ("copy", True): "uint8 ones that are scaled on the device",
    ("copy", False): "uint8 ones that are scaled on the device",
    ("launch", True): "a larger batch makes each operator's work larger",
    ("launch", False): "the device waits for Python",
    ("compute", True): "more threads or an accelerator",
    ("compute", False): "bfloat16 (--precision amp-bf16)",
}


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_the_largest_share_is_the_bottleneck(kind, on_cpu):
    times, busy, shares = PLANTED[kind]
    found = judge(times, busy, on_cpu=on_cpu, workers=0, prefetch_factor=2)
    assert found.kind == kind
    assert tuple(found.shares) == BOTTLENECKS
    assert tuple(found.shares.values()) == pytest.approx(shares)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert any(ADVICE[kind, on_cpu] in line for line in found.advice)
    assert ("no operator" if on_cpu else "no kernel ran") in found.how


def test_the_wait_for_data_is_told_with_what_a_step_would_take_without():
    times, busy, _ = PLANTED["data"]
    for workers, says in (
        (0, "would take 4 s: let further processes load"),
        (3, "more than 3 loading processes (num_workers), or a prefetch_factor above 5"),
    ):
        found = judge(times, busy, on_cpu=True, workers=workers, prefetch_factor=5)
        assert any(says in line for line in found.advice)


def test_what_takes_little_gets_no_advice():
    found = judge(phases(data=0.05, forward=9.95), 0.99, on_cpu=True, workers=0, prefetch_factor=2)
    assert found.kind == "compute"
    assert len(found.advice) == 1


@pytest.mark.parametrize(("busy", "shares"), [(1.7, (0, 1)), (-0.2, (1, 0)), (None, (0, 1))])
def test_how_busy_it_was_is_a_share(busy, shares):
    found = judge(phases(forward=2.0), busy, on_cpu=True, workers=0, prefetch_factor=2)
    assert (found.shares["launch"], found.shares["compute"]) == shares
    assert ("no step was profiled" in found.how) == (busy is None)


def test_a_step_that_takes_no_time():
    with pytest.raises(ValueError, match="no bottleneck"):
        judge(phases(), 0.5, on_cpu=True, workers=0, prefetch_factor=2)


# --- settings of the loader ----------------------------------------------------------------


def point(workers: int, prefetch_factor: int, images_per_s: float) -> TunePoint:
    return TunePoint(
        workers=workers,
        prefetch_factor=prefetch_factor,
        step=summary(2e3 / images_per_s),
        images_per_s=images_per_s,
        waiting=0.5,
    )


def test_settings_that_are_tried():
    two = [(0, 2), (1, 2), (1, 4), (2, 2), (2, 4)]
    assert settings(2, 0, 2) == [Setting(*one) for one in two]
    # The present setting is among them, also beyond the cores.
    assert settings(2, 3, 8) == [
        Setting(0, 2),
        *(Setting(count, factor) for count in (1, 2, 3) for factor in (2, 4, 8)),
    ]
    assert sorted({one.workers for one in settings(6, 0, 2)}) == [0, 1, 2, 4, 6]
    assert settings(1, 0, 2) == [Setting(0, 2), Setting(1, 2), Setting(1, 4)]


def test_a_loader_that_is_no_trouble_stays_in_the_process():
    free = [point(0, 2, 100), point(1, 2, 101), point(1, 4, 102.5), point(2, 2, 99)]
    found = chosen(free)
    assert (found.workers, found.prefetch_factor) == (0, 2)
    assert found.points == tuple(free)


def test_the_smallest_setting_about_as_good_as_the_best():
    slow = [point(0, 2, 20), point(1, 2, 39), point(1, 4, 39.5), point(2, 2, 40), point(2, 4, 38)]
    assert (chosen(slow).workers, chosen(slow).prefetch_factor) == (1, 2)
    assert chosen(slow, within=0.01).workers == 2
    better = [point(0, 2, 20), point(1, 2, 30), point(1, 4, 35), point(2, 2, 40), point(2, 4, 45)]
    assert (chosen(better).workers, chosen(better).prefetch_factor) == (2, 4)


def stepped(milliseconds: float, waiting: float) -> Stepped:
    nanoseconds = round(1e6 * milliseconds)
    data = round(waiting * nanoseconds)
    times = (data, 0, nanoseconds - data, 0, 0, 0)
    return Stepped(TimedStep(times), images=2, boxes=2, losses={"loss": 1.0}, proposals=None)


def test_tuning_counts_the_steps_after_those_that_fill_the_queues():
    """Planted steps: the first two of each setting are slow and count for nothing."""
    takes = {0: 100, 1: 50, 2: 25}
    ran: list[tuple[Setting, int]] = []

    def train(setting, goes_on):
        count = 0
        while goes_on(stepped(1000 if count < 2 else takes[setting.workers], 0.5)):
            count += 1
        ran.append((setting, count + 1))

    tried = [Setting(0, 2), Setting(1, 2), Setting(2, 2), Setting(2, 4)]
    found = tune(tried, train, warmup=2, steps=3, progress=Silent())
    assert (found.workers, found.prefetch_factor) == (2, 2)
    assert [setting for setting, _ in ran] == tried
    # Whole rounds of the processes.
    assert [count for _, count in ran] == [5, 5, 6, 6]
    rates = [20, 40, 80, 80]
    assert [one.images_per_s for one in found.points] == pytest.approx(rates)
    assert [one.waiting for one in found.points] == pytest.approx([0.5] * 4)
    assert [one.step.median for one in found.points] == pytest.approx([0.1, 0.05, 0.025, 0.025])


# --- a loader that is slow indeed ----------------------------------------------------------

# Several times what a step of the small detector takes, also where others use its core.
TAKES_S = 0.05


class Slow:
    """Images with one box each, some of which take their time."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        time.sleep(self._seconds)
        image = torch.full((3, 40, 56), index / self._count)
        boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
        return image, {"boxes": boxes, "labels": torch.ones(1, dtype=torch.int64)}


class Planted:
    """A data set of such images."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds

    def open(self, asked):
        images = Slow(self._count, self._seconds)
        files = (Numbered("train"), Numbered("validation"))
        return BoxedSplits(images, images, ["background", "thing"], files)


@pytest.fixture
def plant(monkeypatch, tmp_path):
    """``plant(seconds, ...)``: a run on images that take so long."""
    monkeypatch.setattr(models, "build_detector", built_small)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(run, "TUNE_WARMUP", 3)
    monkeypatch.setattr(run, "TUNE_STEPS", 4)

    def call(seconds: float, *, tuned: bool = False, **changes: object):
        monkeypatch.setattr(boxed, "get", lambda _: Planted(24, seconds))
        recipe = DetectionRecipe(**{"profile_steps": 2, **changes})
        around = RunOptions(device="cpu", output_dir=tmp_path, threads=1)
        return run.run_detection(recipe, around, tuned=tuned).record

    return call


@pytest.mark.slow
def test_a_slow_loader_is_the_bottleneck_and_further_processes_help(plant):
    record = plant(TAKES_S, tuned=True)
    tuning = record.tuning
    assert tuning is not None
    alone = tuning.points[0]
    assert (alone.workers, alone.prefetch_factor) == (0, 2)
    # A step in one process waits for both of its images.
    assert alone.step.min >= 2 * TAKES_S
    assert alone.waiting > 0.5
    assert tuning.workers > 0
    assert (record.recipe.workers, record.recipe.prefetch_factor) == (
        tuning.workers,
        tuning.prefetch_factor,
    )

    untuned = plant(TAKES_S, limit=8)
    assert untuned.tuning is None
    assert untuned.bottleneck is not None
    assert untuned.bottleneck.kind == "data"
    assert untuned.bottleneck.shares["data"] > 0.5
    assert "further processes load" in untuned.bottleneck.advice[0]


def test_a_loader_that_takes_no_time_is_not(plant):
    record = plant(0.0, limit=10)
    assert record.bottleneck is not None
    assert record.bottleneck.kind in ("compute", "launch")
    assert sum(record.bottleneck.shares.values()) == pytest.approx(1)


def test_a_set_with_fewer_images_than_a_batch(plant):
    with pytest.raises(DataError, match="fewer than one batch of 25"):
        plant(0.0, batch=25)
