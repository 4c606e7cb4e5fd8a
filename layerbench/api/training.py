"""Training: a run, what one will take, and one step taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.api.bars import heard
from layerbench.api.inputs import plan_of, step_of, what_runs, where_it_runs
from layerbench.errors import BadInput, NotAClassifier
from layerbench.profilers.progress import Progress
from layerbench.profilers.training_step import profile_step
from layerbench.records.defaults import MOST_PIXELS, TRAINING_ITERATIONS, TRAINING_WARMUP
from layerbench.records.memory import Optimizer
from layerbench.records.options import checked
from layerbench.records.recipes import TrainingPrecision, Unreadable
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import DType, Precision
from layerbench.training.classification.estimate import estimate
from layerbench.training.classification.options import EstimateOptions, RunOptions
from layerbench.training.classification.recipes import recipe_for
from layerbench.training.classification.run import Trained, run_training
from layerbench.training.own_inputs import (
    BATCH,
    estimate_on_own_inputs,
    size_of,
    takes_images,
    workload_of,
)

SYNTHETIC = "synthetic"


def train(
    model: str,
    phase: int = 2,
    *,
    data: str | None = None,
    data_dir: str | Path = "data",
    download: bool = False,
    size: tuple[int, int] | None = None,
    pretrained: bool | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup_epochs: float | None = None,
    patience: int | None = None,
    precision: TrainingPrecision = "fp32",
    limit: int | None = None,
    samples: int | None = None,
    channels_last: bool = False,
    unreadable: Unreadable = "fatal",
    seed: int = 0,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 0,
    output_dir: str | Path = "outputs",
    resume: bool | str | Path = False,
    checkpoint_minutes: float = 10.0,
    points: bool = True,
    time_all_reduce: bool = False,
    most_pixels: int = MOST_PIXELS,
    progress: Progress | bool | None = None,
) -> Trained:
    """Train or fine-tune a classifier, and write what a run writes.

    Args:
        model: a model spec.
        phase: 1 trains on ImageNet-1K from scratch, 2 fine-tunes on CIFAR-100; what it decides
            can be said otherwise by the arguments that follow.
        data, size, pretrained, batch, epochs, lr, weight_decay, warmup_epochs, patience,
            precision, limit, samples, channels_last, unreadable, seed, checkpoint_activations,
            gradient_accumulation: see `Recipe`; ``None``
            means the phase's usual. A patience of 0 never stops early.
        device, data_dir, download, workers, threads, output_dir, resume, checkpoint_minutes,
            points, time_all_reduce, most_pixels: see
            `layerbench.training.classification.options.RunOptions`.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each step.

    Returns:
        the record, the folder and the model.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    recipe = recipe_for(
        model,
        phase,
        pretrained=pretrained,
        size=size,
        data=data,
        batch=batch,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        patience=patience,
        precision=precision,
        limit=limit,
        samples=samples,
        channels_last=channels_last,
        unreadable=unreadable,
        seed=seed,
        **dict(step_of(True, checkpoint_activations, gradient_accumulation)),
    )
    where = {
        "device": device,
        "data_dir": data_dir,
        "output_dir": output_dir,
        "download": download,
        "workers": workers,
        "threads": threads,
        "resume": Path(resume) if isinstance(resume, str) else resume,
        "checkpoint_minutes": checkpoint_minutes,
        "points": points,
        "time_all_reduce": time_all_reduce,
        "most_pixels": most_pixels,
    }
    with heard(progress) as listener:
        return run_training(recipe, checked(RunOptions, where), progress=listener)


def estimate_training_time(
    model: str,
    *,
    data: str = SYNTHETIC,
    data_dir: str | Path = "data",
    download: bool = False,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    samples: int | None = None,
    val_samples: int | None = None,
    epochs: int = 3,
    precision: TrainingPrecision | None = None,
    channels_last: bool = False,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 0,
    warmup: int = 5,
    steps: int = 40,
    seconds: float = 20.0,
    seed: int = 0,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    progress: Progress | bool | None = None,
) -> TrainingEstimate:
    """Measure some steps of a training and say how long all of it will take, with an interval.

    A classifier trains on the data set, in the loop that `train` runs. Any other model makes the
    steps of `profile_training`, with AdamW, on one batch of its own inputs: no loading is counted.

    Args:
        model: a model spec.
        data, data_dir, download, size, epochs, precision, channels_last, device, threads,
            workers, seed, checkpoint_activations, gradient_accumulation: as in `train`.
        batch: images of a micro-batch; ``None`` for 8, or for as many as inputs of the user's own
            hold.
        samples, val_samples: images an epoch trains on and validates; ``None`` for as many as the
            data set has. Where only ``samples`` is given, and for models that are no classifiers,
            nothing is validated.
        checkpoint, inputs: as in `profile`. With inputs of a file any model, also a classifier,
            makes its steps on them.
        warmup, steps: steps that do not count, and the fewest that are measured.
        seconds: that are measured at least.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each step.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    if samples is not None:
        val_samples = val_samples or 0
    step = step_of(True, checkpoint_activations, gradient_accumulation)
    asked: dict[str, Any] = {"epochs": epochs, "precision": precision}
    asked |= {"channels_last": channels_last, "seed": seed}
    options = checked(
        EstimateOptions,
        {
            **{"samples": samples, "val_samples": val_samples},
            **{"warmup": warmup, "steps": steps, "seconds": seconds},
        },
    )
    where = checked(
        RunOptions,
        {
            **{"device": device, "data_dir": data_dir, "download": download},
            **{"workers": workers, "threads": threads},
        },
    )
    why = ""
    with heard(progress) as listener:
        if inputs is None and takes_images(model, size):
            recipe = recipe_for(
                model,
                pretrained=False,
                size=size,
                data=data,
                batch=BATCH if batch is None else batch,
                **asked,
                **dict(step),
            )
            try:
                return estimate(recipe, options, where, checkpoint=checkpoint, progress=listener)
            except NotAClassifier as error:
                _check_no_data(data, str(error))
                why = f"{error}; "
        _check_no_data(data, f"{model} is measured on inputs of its own")
        try:
            workload = workload_of(
                model,
                size=size,
                batch=batch,
                precision=precision,
                channels_last=channels_last,
                seed=seed,
                checkpoint=checkpoint,
                inputs=inputs,
                step=step,
            )
        except BadInput as error:
            raise BadInput(f"{why}{error}") from error
        recipe = recipe_for(
            workload.model,
            pretrained=False,
            size=size_of(workload),
            data=data,
            batch=workload.batch,
            **asked,
            **dict(step),
        )
        return estimate_on_own_inputs(workload, recipe, options, where, progress=listener)


def _check_no_data(data: str, why: str) -> None:
    """Refuse a data set for a model that is not trained on one here."""
    if data != SYNTHETIC:
        raise NotAClassifier(f"{why}: without --data its steps are estimated on inputs of its own")


def profile_training(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    optimizer: Optimizer = "sgd",
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    device: str | None = None,
    threads: int | None = None,
    warmup: int = TRAINING_WARMUP,
    iterations: int = TRAINING_ITERATIONS,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    strict: bool = False,
    progress: Progress | bool | None = None,
) -> TrainingProfile:
    """Take a training step apart: by phase, and forward and backward by module.

    Args:
        model, input, batch, device, threads, precision, dtype, channels_last, seed, weights,
            checkpoint, inputs: as in `profile`. A module that is handed over trains, and comes back
            as it was.
        optimizer: one of `layerbench.profilers.memory.traced_run.OPTIMIZERS`.
        checkpoint_activations: paths of modules whose forward runs again in the backward, so that
            their activations are not kept; ``()`` for blocks, and parts of chains of layers.
        gradient_accumulation: micro-batches in a step, each of ``batch`` images.
        warmup, iterations: rounds of one untouched and one instrumented step.
        strict: raise `UntrustedError` where the machine is busy.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each round.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = plan_of(warmup=warmup, iterations=iterations, threads=threads, function_iterations=0)
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        device=device,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        mode="train",
        seed=seed,
        weights=weights,
        checkpoint=checkpoint,
        inputs=inputs,
        step=step_of(True, checkpoint_activations, gradient_accumulation),
    )
    with heard(progress) as listener:
        return profile_step(
            workload,
            plan,
            where_it_runs(subject, device),
            optimizer=optimizer,
            subject=subject,
            progress=listener,
            strict=strict,
        )
