"""A training run: its recipe, each epoch's results, and the times of the steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import (
    Count,
    Figure,
    Name,
    Positive,
    Text,
    Time,
    is_none,
)
from layerbench.records.conditions import DeviceConditions
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.recipes import Recipe
from layerbench.records.rows import Phases
from layerbench.records.sweep import SweepPoint
from layerbench.records.timing import Summary
from layerbench.records.training_step import PhaseRow, StepPhase
from layerbench.records.workload import Frozen

Outcome = Literal["running", "finished", "stopped early"]


class EpochRow(Frozen):
    """One epoch.

    Attributes:
        epoch: from 1.
        steps: optimizer steps.
        lr: of the last step.
        train_loss, train_accuracy: means over the epoch's images, as they went by.
        val_loss, val_accuracy, val_top5: of the weights after the epoch. ``val_top5`` is ``None``
            for fewer than 6 classes.
        train_s: from the first batch asked for to the last step's end.
        validation_s: of the validation.
        images_per_s: images trained on over ``train_s``, all processes together.
        phases_s: sums over the steps of the first process. What is missing to ``train_s`` is
            bookkeeping between steps.
        unreadable: images that could not be read and were left out.
        allocated, reserved: bytes at the peak so far; ``None`` where the device does not count.
        resident: bytes of the first process's resident set at its largest so far.
    """

    epoch: Positive
    steps: Count
    lr: Figure
    train_loss: Figure
    train_accuracy: Figure
    val_loss: Figure
    val_accuracy: Figure
    val_top5: Figure | None = None
    train_s: Time
    validation_s: Time
    images_per_s: Figure
    phases_s: dict[StepPhase, Time]
    unreadable: Count = 0
    allocated: Count | None = None
    reserved: Count | None = None
    resident: Count | None = None


class RankTimes(Frozen):
    """One process of a run, over the steps of the last epoch.

    Attributes:
        machine: the number of the machine among those that took part.
        step: a step's time.
        all_reduce: the time a step in which gradients were on their way between processes,
            which partly overlaps the backward; ``None`` for a process alone.
        conditions: of its accelerator, in the run so far; the environment has the first one's.
    """

    rank: Count
    machine: Count
    device: Name
    step: Summary
    all_reduce: Summary | None = None
    conditions: DeviceConditions | None = Field(default=None, exclude_if=is_none)


class TrainingRun(Record):
    """One run, finished or still going on.

    Attributes:
        outcome: how it stands.
        classes, train_images, val_images: of the data set.
        parameters: of the model with its new head.
        flops: of one image's forward; a multiply-add is 2. ``None`` where they cannot be counted.
        epochs: a row each.
        best_epoch: with the highest validation accuracy: the weights that were kept.
        resumed_after: the epochs after which the run was taken up again.
        step, phases: over the last epoch's steps of the first process.
        ranks: each process.
        points: the trained model's latency and memory at several batch sizes.
        unreadable: names of images that could not be read, the first ones.
    """

    record: Literal["training run"] = "training run"
    recipe: Recipe
    outcome: Outcome
    environment: Environment
    model_type: Name
    parameters: Count
    flops: Count | None = None
    classes: Count
    train_images: Count
    val_images: Count
    epochs: tuple[EpochRow, ...]
    best_epoch: Count | None = None
    resumed_after: tuple[Count, ...] = ()
    step: Summary | None = None
    phases: Phases[PhaseRow] = ()
    ranks: tuple[RankTimes, ...] = ()
    points: tuple[SweepPoint, ...] = ()
    unreadable: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()

    @property
    def best(self) -> EpochRow | None:
        """The epoch whose weights were kept."""
        return next((row for row in self.epochs if row.epoch == self.best_epoch), None)
