"""Whatever times a device says how the device was meanwhile, and what warming it up took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.environment import conditions
from layerbench.environment.devices.accelerator import Accelerator
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import Environment
from layerbench.records.recipes import DetectionRecipe
from layerbench.service.protocol.questions import EXAMPLE, Question
from layerbench.service.worker import estimate as service
from layerbench.training import run_folder
from layerbench.training.detection import models, options
from layerbench.training.detection.config import RunOptions
from layerbench.training.detection.estimate import estimate_detectors
from layerbench.training.detection.run import run_detection
from tests.simulated import Simulator
from tests.simulated.process import on_sim
from tests.support.small_detectors import two_stage

READER = "tests/models.py:digit_reader"
DETECTOR = "fasterrcnn_resnet50_fpn"
ON_SIM: dict[str, Any] = {"device": "sim", "threads": 1}
WARNING = "The accelerator's clock was 1400 MHz, 71 % of its highest (power cap):"


def _small(*_: object) -> nn.Module:
    return two_stage(4)


def trained(place: Path) -> Any:
    return layerbench.train(
        READER, data="digits", size=(8, 8), batch=32, epochs=1, limit=3, output_dir=place,
        points=False, **ON_SIM,
    ).record  # fmt: skip


def training_time(_: Path) -> Any:
    return layerbench.estimate_training_time(
        READER, size=(8, 8), batch=4, samples=64, val_samples=0, warmup=1, steps=3, seconds=0.0,
        **ON_SIM,
    )  # fmt: skip


def detection(_: Path) -> Any:
    asked = options.EstimateOptions(
        batch=1, samples=4, size=(40, 56), warmup=1, steps=2, seconds=0.0, content=False,
        memory=False,
    )  # fmt: skip
    return estimate_detectors([DETECTOR], asked, **ON_SIM)


def detected(place: Path) -> Any:
    recipe = DetectionRecipe(
        model=DETECTOR, data="synthetic", batch=1, limit=3, warmup=1, profile_steps=0
    )
    return run_detection(recipe, RunOptions(output_dir=place, **ON_SIM)).record


def answered(kind: str) -> Callable[[Path], Any]:
    def answer(_: Path) -> Any:
        asked = {"parameters": None, "batch_size": 2, "image_size": [16, 16]}
        question = Question.model_validate(
            {
                **EXAMPLE,
                **asked,
                "architecture": "resnet18",
                "task_type": "classification",
                "application_type": kind,
            }
        )
        return service.measure(question, "sim", 0.0)

    return answer


VERBS: dict[str, Callable[[Path], Any]] = {
    "train": trained,
    "estimate training-time": training_time,
    "estimate detection": detection,
    "detect": detected,
    "service, training": answered("training"),
    "service, inference": answered("inference"),
}


# How many there are: for each of what is timed by itself. Trainings count their first steps.
WARM_UPS = {
    "estimate training-time": 1,
    "estimate detection": 2,
    "service, training": 1,
    "service, inference": 2,
}


def measured(verb: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The record of a verb on a device that is looked at all the time, and has a low clock."""
    look = DeviceLook(1400e6, 1980e6, 700.0, 81.0, ("power cap",))
    monkeypatch.setattr(Accelerator, "look", lambda _: look)
    monkeypatch.setattr(conditions, "INTERVAL_S", 0.0)
    monkeypatch.setattr(models, "build_detector", _small)
    monkeypatch.setattr(run_folder, "write_reports", lambda *_, **__: None)  # draws for seconds
    monkeypatch.setattr(service, "_predicted", lambda *_: (None, ()))
    return VERBS[verb](place)


@pytest.mark.slow
@on_sim
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_how_the_device_was(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    sim.rules(kernel_ns=1_000)
    record = measured(verb, tmp_path, monkeypatch)
    environment: Environment = record.environment
    seen = environment.conditions
    assert seen is not None
    assert seen.looks >= 1
    assert (seen.clock_median_hz, seen.power_w, seen.temperature_c) == (1400e6, 700.0, 81.0)
    assert any(warning.startswith(WARNING) for warning in environment.warnings)
    taken = environment.warm_up
    # `sim` is warm at once here: there are too few rounds to see that.
    told = None if taken is None else (taken.warm_ups, taken.steady)
    assert told == (None if verb not in WARM_UPS else (WARM_UPS[verb], False))
    if verb in ("estimate training-time", "estimate detection"):
        assert "times still changed" in reporters.render("txt", record)
    if not verb.startswith("service"):
        for name in ("txt", "md", "html", "csv"):
            text = " ".join(reporters.render(name, record).split())
            assert WARNING in text.replace("&#x27;", "'"), name
            assert name == "csv" or "clock 1400 MHz (median; p5 1400 MHz)" in text, name
