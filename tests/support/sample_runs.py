"""Runs, sweeps and forecasts made by hand for tests of what shows them."""

from __future__ import annotations

from layerbench.records.recipes import Recipe
from layerbench.records.sweep import FinishedRun, Sweep, SweepEnd, SweepPoint
from layerbench.records.training_estimate import Seconds, TrainingEstimate
from layerbench.records.training_run import EpochRow, RankTimes, TrainingRun
from layerbench.records.training_step import STEP_PHASES, PhaseRow
from tests.support.sample_profiles import environment, summary

MEBIBYTE = 2**20
PHASES = tuple(
    PhaseRow(name=name, time=summary(ms))
    for name, ms in zip(STEP_PHASES, (0.1, 0.4, 10.0, 0.5, 20.0, 4.0), strict=True)
)


def recipe(**changes: object) -> Recipe:
    """ResNet-50 fine-tuned on CIFAR-100 by two processes."""
    fields: dict[str, object] = {
        "model": "resnet50",
        "data": "cifar100",
        "phase": 2,
        "weights": "DEFAULT",
        "size": (224, 224),
        "batch": 64,
        "ranks": 2,
        "epochs": 3,
        "lr": 1e-3,
        "weight_decay": 0.1,
        "warmup_epochs": 0.3,
        "patience": 10,
    }
    return Recipe.model_validate({**fields, **changes})


def point(batch: int, **changes: object) -> SweepPoint:
    """A forward that takes 5 ms and 2 ms an image."""
    fields: dict[str, object] = {
        "model": "resnet50",
        "size": (224, 224),
        "batch": batch,
        "latency": summary(5.0 + 2.0 * batch, n=50),
        "flops": 8_178_368_512 * batch,
        "allocated": (100 + 10 * batch) * MEBIBYTE,
        "reserved": (120 + 12 * batch) * MEBIBYTE,
        "memory": "predicted",
    }
    return SweepPoint.model_validate({**fields, **changes})


def run(**changes: object) -> TrainingRun:
    """Three epochs, the second the best, resumed once, one image that could not be read."""
    epochs = tuple(
        EpochRow(
            epoch=number,
            steps=390,
            lr=1e-3 / number,
            train_loss=3.0 / number,
            train_accuracy=0.2 * number,
            val_loss=2.5 / number,
            val_accuracy=accuracy,
            val_top5=accuracy + 0.2,
            train_s=14.2,
            validation_s=2.5,
            images_per_s=3515.5,
            phases_s={phase.name: 390 * phase.time.mean for phase in PHASES},
            unreadable=1,
            allocated=3 * 2**30,
            reserved=4 * 2**30,
            resident=2 * 2**30,
        )
        for number, accuracy in ((1, 0.31), (2, 0.52), (3, 0.515))
    )
    fields: dict[str, object] = {
        "recipe": recipe(),
        "outcome": "finished",
        "environment": environment(warnings=("the load was 1.8 on 2 cores before the run",)),
        "model_type": "ResNet",
        "parameters": 23_712_932,
        "flops": 8_174_682_112,
        "classes": 100,
        "train_images": 50_000,
        "val_images": 10_000,
        "epochs": epochs,
        "best_epoch": 2,
        "resumed_after": (1,),
        "step": summary(35.0),
        "phases": PHASES,
        "ranks": tuple(
            RankTimes(
                rank=rank,
                machine=0,
                device=f"cuda:{rank}",
                step=summary(35.0 + rank),
                all_reduce=summary(6.0),
            )
            for rank in (0, 1)
        ),
        "points": (point(1), point(2), point(4)),
        "unreadable": ("train image 17 (OSError: image file is truncated)",),
    }
    return TrainingRun.model_validate({**fields, **changes})


def sweep() -> Sweep:
    """Two models, one of which ends for want of memory, and a finished training."""
    vit = "timm:vit_base_patch16_224"
    return Sweep(
        environment=environment(),
        points=(point(1), point(2), point(1, model=vit, allocated=None, reserved=None, flops=None)),
        ends=(
            SweepEnd(model="resnet50", size=(224, 224), batch=4, fits=False, why="9 GiB, 8 free"),
            SweepEnd(model=vit, size=(224, 224), batch=2, fits=True, why="it would take 90 s"),
        ),
        runs=(
            FinishedRun(
                model="resnet50",
                data="cifar100",
                size=(224, 224),
                flops=8_174_682_112,
                parameters=23_712_932,
                accuracy=0.52,
            ),
        ),
    )


def forecast() -> TrainingEstimate:
    """Three epochs of 6,250 steps."""
    return TrainingEstimate(
        recipe=recipe(ranks=1, batch=8, weights=None),
        samples=50_000,
        val_samples=0,
        steps=6250,
        val_steps=0,
        warmup=5,
        environment=environment(),
        model_type="ResNet",
        parameters=23_712_932,
        step=summary(35.0, n=40),
        phases=PHASES,
        between_s=1e-5,
        start_s=0.02,
        once_s=0.5,
        epoch=Seconds(value=218.8, low=203.1, high=235.7),
        total=Seconds(value=656.9, low=609.8, high=707.6),
        assumptions=("All epochs are alike.", "Nothing is validated."),
    )
