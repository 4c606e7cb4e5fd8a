"""How long a training will take of a model that no loader of labelled images is for.

Its steps are those of ``train-profile``: one batch of its own inputs, and whatever loss its output
allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from layerbench import zoo
from layerbench.datasets.synthetic import TRAINED
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.precision import precision_set
from layerbench.environment.run_context import (
    check_input_fits,
    memory_explained,
    model_errors,
    threads_set,
    watch_environment,
)
from layerbench.errors import BadInput, UsageError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.step_timer import Step, phases_of
from layerbench.introspection.modules import parameters
from layerbench.profilers.loss import described_loss
from layerbench.profilers.own_step import OwnStep, own_step
from layerbench.profilers.progress import MEASURING, Progress, Silent
from layerbench.records.memory import Optimizer
from layerbench.records.recipes import Recipe
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.workload import Precision, StepOptions, Workload
from layerbench.training import step_statistics
from layerbench.training.classification.options import EstimateOptions, RunOptions
from layerbench.training.estimate import StepFigures, Trial, assumptions, check_samples
from layerbench.units import by_x
from layerbench.zoo.inputs import OWN

OPTIMIZER: Optimizer = "adamw"  # as classifiers are trained with
# Images of a step where nothing is said, of models that take any number of them.
BATCH = 8
VALIDATED_BATCHES = 10
# On an accelerator the host waits for it after so many steps, as a training does.
LOOK_EVERY = 10
NO_SIZE = (0, 0)
_LEAST_DIMENSIONS = 4  # of images: batch, channels, height, width


def workload_of(
    model: str,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    precision: Precision | None = None,
    channels_last: bool = False,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    step: StepOptions,
) -> Workload:
    """What a step of such a training runs.

    Args:
        model: a model spec.
        size: height and width of its images; ``None`` for those that it is meant for.
        batch: images of a micro-batch; ``None`` for as many as inputs of the user's own hold,
            or else `BATCH`.
        precision, channels_last, seed, checkpoint, inputs: as `layerbench.zoo.resolve`.
        step: what the steps do besides.

    Raises:
        LayerbenchError: as `layerbench.zoo.resolve`.
    """
    if inputs is not None and size is not None:
        raise UsageError("say the size of the images, or name the file that holds the inputs")
    said: dict[str, Any] = {
        "precision": precision,
        "memory_format": "channels_last" if channels_last else "contiguous",
        "mode": "train",
        "seed": seed,
        "inputs": inputs,
    }
    usual = zoo.resolve(model, **said)
    named = None
    if size is not None:
        if len(usual.shape) < _LEAST_DIMENSIONS:
            raise UsageError(f"{model} does not take images: leave the size out")
        named = by_x((*usual.shape[1:-2], *size))
    if named or (usual.input != OWN and inputs is None):
        batch = batch or BATCH
    if named:
        named = f"{batch}x{named}"
    return zoo.resolve(model, named, batch=batch, checkpoint=checkpoint, **said).with_step(step)


def takes_images(model: str, size: tuple[int, int] | None) -> bool:
    """Whether a loader of images may be for it, by the shape of its usual input.

    Args:
        model: a model spec.
        size: height and width of its images, as the user says them.
    """
    try:
        shape = zoo.resolve(model).shape
    except BadInput:  # it has no usual one
        return True
    return size is not None or len(shape) == _LEAST_DIMENSIONS


def size_of(workload: Workload) -> tuple[int, int]:
    """Height and width of the images; `NO_SIZE` for inputs that are none."""
    shape = workload.shape
    return (shape[-2], shape[-1]) if len(shape) >= _LEAST_DIMENSIONS else NO_SIZE


def estimate_on_own_inputs(
    workload: Workload,
    recipe: Recipe,
    options: EstimateOptions,
    where: RunOptions,
    *,
    progress: Progress | None = None,
) -> TrainingEstimate:
    """Measure steps on one batch, and say how long a training would take.

    Nothing is loaded: the batch waits in the host's memory, and is copied anew for every step.

    Args:
        workload: of a step, see `workload_of`.
        recipe: what would be trained: its epochs.
        options: how much of it.
        where: on which device, with how many threads.
        progress: hears of the steps.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    if where.workers:
        raise UsageError(
            f"the steps of {workload.model} are measured on inputs in memory, which no further "
            "processes load: leave --workers out"
        )
    samples = options.samples or TRAINED
    check_samples(samples, recipe.step_images)
    steps, validated = samples // recipe.step_images, options.val_samples or 0
    val_steps = -(-validated // recipe.batch)
    device = devices.get(where.device)
    with (
        threads_set(where.threads),
        precision_set(workload.precision, device),
        memory_explained(device),
    ):
        room = watch_environment(device)
        check_input_fits(workload, device)
        trial = Trial(options.warmup, options.steps, options.seconds, device, room.conditions)
        with own_step(workload, device, OPTIMIZER) as own:
            loss = _measure(own, trial, device, progress or Silent())
            figures = StepFigures.of(trial.measured([]))
            validation = _validation_step_s(own, device) if val_steps else None
            model, notes, broken = own.model, own.notes, own.not_finite()
        environment = room.finish()
    epoch, total = figures.training(steps, val_steps * (validation or 0.0), recipe.epochs)
    return TrainingEstimate(
        recipe=recipe,
        workload=workload,
        batches="own inputs",
        loss=loss,
        samples=samples,
        val_samples=validated,
        steps=steps,
        val_steps=val_steps,
        warmup=figures.warmup,
        environment=environment,
        model_type=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in parameters(model)),
        step=figures.step,
        phases=step_statistics.phase_rows(figures.steps),
        between_s=figures.between_s,
        start_s=figures.start_s,
        validation_step_s=validation,
        once_s=figures.once_s,
        epoch=epoch,
        total=total,
        not_finite=broken or None,
        assumptions=assumptions(
            samples, steps, recipe.step_images, None, _assumptions(workload, loss, validated)
        ),
        notes=notes,
    )


def _measure(own: OwnStep, trial: Trial, device: Device, progress: Progress) -> str:
    """Train for as many steps as it takes; gives the loss that the output allowed."""
    found: list[str] = []

    def loss(output: Any, batch: Any) -> torch.Tensor:  # noqa: ANN401 - of any model
        if not found:
            found.append(described_loss(output))
        return own.step.loss(output, batch)

    def run(step: Step) -> None:
        clock, enough = device.clock(), False
        while not enough:
            progress.step(MEASURING, min(len(trial.steps), trial.fewest), trial.fewest)
            # How many there have to be the first one says.
            one = device.kind == "cpu" or not trial.steps
            enough = trial.add(phases_of(step, clock, 1 if one else LOOK_EVERY))

    own.explaining(lambda step: run(replace(step, loss=loss)))
    return found[0]


def _validation_step_s(own: OwnStep, device: Device) -> float:
    """Seconds of a validation's batch: its copy and its forward."""
    clock = device.clock()
    with mode_set(own.model, False), torch.no_grad(), model_errors(device, own.workload.model):
        clock.synchronize()
        begins = time.perf_counter()
        for _ in range(VALIDATED_BATCHES):
            args, kwargs = own.inputs()
            own.forward(*args, **kwargs)
        clock.synchronize()
        return (time.perf_counter() - begins) / VALIDATED_BATCHES


def _assumptions(workload: Workload, loss: str, validated: int) -> Iterator[str]:
    what = "of a file" if workload.inputs else "of the model's own, of random values"
    yield (
        f"Every step has the same inputs {what}: they wait in memory and are copied anew. No "
        "reading, decoding or augmentation of data is counted."
    )
    yield f"The loss is made of the output alone: {loss}. The optimizer is AdamW."
    yield (
        f"{validated} images are validated after each epoch: their forward is counted, and no loss."
        if validated
        else "Nothing is validated."
    )
    yield "Checkpoints, reports and plots are not counted; nor is loading torch."
