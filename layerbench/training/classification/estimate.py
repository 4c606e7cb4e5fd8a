"""How long a training will take: a few steps of it measured, the rest extrapolated."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from layerbench.datasets import Images
from layerbench.environment import devices
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.precision import precision_set
from layerbench.environment.run_context import memory_explained, threads_set, watch_environment
from layerbench.profilers.optimizers import not_finite
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.recipes import Recipe
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.workload import Workload
from layerbench.training import step_statistics
from layerbench.training.batches import Batch, EpochBatches, EveryImage, Samples, collate, loader
from layerbench.training.classification.distributed import Ranks
from layerbench.training.classification.models import build_classifier
from layerbench.training.classification.options import EstimateOptions, RunOptions
from layerbench.training.classification.setup import check, open_data
from layerbench.training.classification.trainer import KEPT, Seen, Trainer, steps_of
from layerbench.training.estimate import (
    MOST_EPOCHS,
    Measured,
    Started,
    StepFigures,
    Trial,
    assumptions,
    check_samples,
)

VALIDATED_BATCHES = 10


def estimate(
    recipe: Recipe,
    options: EstimateOptions,
    where: RunOptions,
    *,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainingEstimate:
    """Measure some steps of a training and say how long all of it would take.

    What is measured is the loop that trains, on the data set's own batches: forward and backward
    each, data loading included. Nothing is written.

    Args:
        recipe: what would be trained.
        options: how much of it.
        where: as for `layerbench.training.classification.run.run_training`; one process.
        checkpoint: a file of weights that the model begins with.
        progress: hears of each step.

    Raises:
        NotAClassifier: see `build_classifier`.
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    device = devices.get(where.device)
    with (
        threads_set(where.threads),
        precision_set(recipe.precision, device),
        torch.random.fork_rng(devices=[]),
        memory_explained(device),
    ):
        room = watch_environment(device)
        workload = check(recipe, checkpoint)
        subject = _Subject(
            recipe, workload, options, where, device, progress or Silent(), room.conditions
        )
        figures = StepFigures.of(subject.measured())
        validation = subject.validation_step_s()
        environment = room.finish()
    images = subject.images
    epoch, total = figures.training(
        images.steps, images.val_steps * (validation or 0.0), recipe.epochs
    )
    return TrainingEstimate(
        recipe=subject.recipe,
        workload=workload,
        samples=images.samples,
        val_samples=images.val_samples,
        steps=images.steps,
        val_steps=images.val_steps,
        warmup=figures.warmup,
        environment=environment,
        model_type=type(subject.model).__name__,
        parameters=sum(parameter.numel() for parameter in subject.model.parameters()),
        step=figures.step,
        phases=step_statistics.phase_rows(figures.steps),
        between_s=figures.between_s,
        start_s=figures.start_s,
        validation_step_s=validation,
        once_s=figures.once_s,
        epoch=epoch,
        total=total,
        not_finite=not_finite(subject.model.parameters()) or None,
        assumptions=assumptions(
            images.samples,
            images.steps,
            recipe.step_images,
            where.workers,
            _assumptions(recipe, images),
        ),
    )


@dataclass(frozen=True)
class _Images:
    """How much would be trained."""

    samples: int
    val_samples: int
    steps: int
    val_steps: int

    @classmethod
    def of(cls, options: EstimateOptions, train: int, val: int, recipe: Recipe) -> _Images:
        samples = train if options.samples is None else options.samples
        validated = val if options.val_samples is None else options.val_samples
        check_samples(samples, recipe.step_images)
        val_steps = math.ceil(validated / recipe.batch)
        return cls(samples, validated, samples // recipe.step_images, val_steps)


# --- measuring -----------------------------------------------------------------------------


class _Subject:
    """The beginning of a training.

    Attributes:
        recipe: with the model's full name.
        model: that learns.
        images: how much would be trained.
    """

    def __init__(
        self,
        recipe: Recipe,
        workload: Workload,
        options: EstimateOptions,
        where: RunOptions,
        device: Device,
        progress: Progress,
        conditions: ConditionsWatch,
    ) -> None:
        self.recipe = recipe = recipe.model_copy(update={"model": workload.model})
        self._splits = open_data(recipe, where)
        # Before the number of images is looked at: a model that is no classifier takes no set's.
        model = build_classifier(workload, len(self._splits.classes))
        self._workers = where.workers
        self._pinned = device.kind == "cuda"
        self._order = EpochBatches(len(self._splits.train), recipe.batch, recipe.seed)
        self.images = _Images.of(options, len(self._splits.train), len(self._splits.val), recipe)
        self.model = model.to(device.torch_device)
        self._trial = Trial(options.warmup, options.steps, options.seconds, device, conditions)
        self._trainer = Trainer(
            self.model,
            recipe.model_copy(update={"epochs": MOST_EPOCHS}),
            device,
            Ranks(),
            min(self._trial.fewest, steps_of(recipe, self._order.steps), KEPT),
            progress,
            goes_on=True,
        )

    def measured(self) -> Measured:
        """Train, over as many stretches of an epoch as it takes."""
        trial = self._trial
        started = Started(self._loader(self._splits.train, 0, self._order))

        def enough(_: int, seen: Seen) -> bool:
            return trial.see(seen.times.phases)

        for epoch in trial.epochs():
            self._trainer.train(epoch, self._order, started, between=enough)
        return trial.measured(started.seconds)

    def validation_step_s(self) -> float | None:
        """Seconds of one validation batch; ``None`` where nothing would be validated."""
        if self.images.val_steps == 0:
            return None
        val = self._splits.val
        few = EveryImage(len(val), self.recipe.batch, most=VALIDATED_BATCHES)
        begins = time.perf_counter()
        self._trainer.validate(self._loader(val, 1, few))
        return (time.perf_counter() - begins) / len(few)

    def _loader(
        self, images: Images, half: int, batches: EpochBatches | EveryImage
    ) -> DataLoader[Batch]:
        samples = Samples(images, self._splits.files[half], self.recipe.seed)
        return loader(samples, batches, workers=self._workers, pinned=self._pinned, collate=collate)


def _assumptions(recipe: Recipe, images: _Images) -> Iterator[str]:
    if recipe.data == "synthetic":
        yield (
            "The images are made up as they are asked for: the wait for data says nothing about a "
            "loader that reads and augments files (--data names a data set)."
        )
    yield (
        f"{images.val_samples} images are validated after each epoch."
        if images.val_steps
        else "Nothing is validated."
    )
    yield "Checkpoints, reports and plots are not counted; nor is loading torch."
