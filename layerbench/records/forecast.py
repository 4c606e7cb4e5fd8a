"""How long a training will take, from a few measured steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.environment import Environment
from layerbench.records.run import Recipe
from layerbench.records.timing import Summary
from layerbench.records.training import PhaseRow
from layerbench.workload import Frozen


class Seconds(Frozen):
    """A time with the bounds that it is expected to lie between (95 %)."""

    value: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float


class TrainingForecast(Frozen):
    """A training's duration, extrapolated.

    ``epoch`` is ``start_s``, ``steps`` times the mean step and ``between_s``, and ``val_steps``
    times ``validation_step_s``; ``total`` is ``once_s`` and all epochs.

    Attributes:
        recipe: what would be trained; its ``limit`` says nothing here.
        samples, val_samples: images an epoch trains on, and validates on.
        steps, val_steps: of an epoch.
        warmup: steps run before the first that counts; ``step.n`` were measured.
        step: one training step; ``phases``: its parts.
        between_s: mean time from a step's end to the next one's beginning.
        start_s: until the first batch of an epoch is there, less a usual wait for data.
        validation_step_s: one validation batch, data included; ``None`` without validation.
        once_s: what the warm-up steps took longer than as many others.
        assumptions: one sentence each.
    """

    record: Literal["training forecast"] = "training forecast"
    schema_version: Literal[1] = 1
    recipe: Recipe
    samples: int = Field(ge=1)
    val_samples: int = Field(ge=0)
    steps: int = Field(ge=1)
    val_steps: int = Field(ge=0)
    warmup: int
    environment: Environment
    model_type: str
    parameters: int
    step: Summary
    phases: tuple[PhaseRow, ...]
    between_s: float
    start_s: float
    validation_step_s: float | None = None
    once_s: float
    epoch: Seconds
    total: Seconds
    assumptions: tuple[str, ...]
    notes: tuple[str, ...] = ()
