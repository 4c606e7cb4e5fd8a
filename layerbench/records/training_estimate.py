"""How long a training will take, from a few measured steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    Count,
    Name,
    Positive,
    SignedTime,
    Text,
    Time,
    check_ordered,
    is_none,
)
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.recipes import Recipe
from layerbench.records.rows import Phases
from layerbench.records.timing import Summary
from layerbench.records.training_step import PhaseRow
from layerbench.records.workload import Frozen, Workload


class Seconds(Frozen):
    """A time with the bounds that it is expected to lie between (95 %)."""

    value: Time
    low: Time
    high: Time

    @model_validator(mode="after")
    def _in_order(self) -> Seconds:
        check_ordered("a duration", self.low, self.high)
        return self


class TrainingEstimate(Record):
    """A training's duration, extrapolated.

    ``epoch`` is ``start_s``, ``steps`` times the mean step and ``between_s``, and ``val_steps``
    times ``validation_step_s``; ``total`` is ``once_s`` and all epochs.

    Attributes:
        recipe: what would be trained; its ``limit`` says nothing here. Of inputs that are no images
            the size is 0x0.
        workload: what a step runs; ``None`` in older records, all of them of classifiers.
        batches: where they come from: a loader of the data set, or one batch of inputs that waits
            in memory, so that no loading is part of the step.
        loss: what the steps went backward from.
        samples, val_samples: images an epoch trains on, and validates on.
        steps, val_steps: of an epoch.
        warmup: steps run before the first that counts; ``step.n`` were measured.
        step: one training step; ``phases``: its parts.
        between_s: mean time from a step's end to the next one's beginning.
        start_s: until the first batch of an epoch is there, less a usual wait for data.
        validation_step_s: one validation batch, data included; ``None`` without validation.
        once_s: what the warm-up steps took longer than as many others.
        not_finite: what became of the weights in the measured steps, where they are no numbers.
        assumptions: one sentence each.
    """

    record: Literal["training forecast"] = "training forecast"
    recipe: Recipe
    workload: Workload | None = None
    batches: Literal["data set", "own inputs"] = "data set"
    loss: Text = "cross-entropy against the labels"
    samples: Positive
    val_samples: Count
    steps: Positive
    val_steps: Count
    warmup: Count
    environment: Environment
    model_type: Name
    parameters: Count
    step: Summary
    phases: Phases[PhaseRow]
    between_s: SignedTime
    start_s: SignedTime
    validation_step_s: SignedTime | None = None
    once_s: SignedTime
    epoch: Seconds
    total: Seconds
    not_finite: Text | None = Field(default=None, exclude_if=is_none)
    assumptions: tuple[Text, ...]
    notes: tuple[Text, ...] = ()
