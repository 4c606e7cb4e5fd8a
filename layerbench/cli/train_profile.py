"""``layerbench train-profile``: one training step taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from layerbench.cli import _options
from layerbench.cli._generated import fields
from layerbench.records.defaults import TRAINING_ITERATIONS, TRAINING_WARMUP
from layerbench.records.memory import Optimizer
from layerbench.records.options import MEASURING, WHAT_RUNS, Device, option
from layerbench.records.view import View
from layerbench.records.workload import Plan, StepOptions

NAME = "train-profile"


def command(
    *,
    what: Annotated[
        _options.WorkloadOptions,
        fields(
            *("model", "input", "inputs", "batch", "precision", "dtype", "channels_last"),
            *("checkpoint", "seed"),
        ),
    ],
    optimizer: Annotated[
        Optimizer, option("sgd, momentum, adam, adamw, rmsprop or adagrad.", panel=WHAT_RUNS)
    ] = "sgd",
    step: Annotated[StepOptions, fields()],
    device: Device = None,
    plan: Annotated[
        Plan, fields("threads", warmup=TRAINING_WARMUP, iterations=TRAINING_ITERATIONS)
    ],
    strict: Annotated[
        bool, option("Refuse to measure while the machine is busy.", panel=MEASURING)
    ] = False,
    out: Annotated[
        Path | None, _options.out("DIR/<device>/<model>_<input>_train_<optimizer>.*")
    ] = None,
    formats: _options.Formats = None,
    view: Annotated[View, fields(omit=("sentences",))],
    quiet: _options.Quiet = False,
) -> None:
    """Time one training step: data, copy, forward, loss, backward, optimizer, and every layer.

    Forward and backward of every layer, also of in-place ones. The batch is random and is
    copied to the device anew for every step.

    For --compile and --cuda-graph see timer and compare --live.
    """
    names = _options.checked_formats(formats, out, step=True)

    # After the cheap checks: this loads torch.
    from layerbench.api import training
    from layerbench.cli._progress import measuring

    with measuring(what.model, quiet, device) as progress:
        record = training.profile_training(
            what.model,
            what.input,
            batch=what.batch,
            optimizer=optimizer,
            device=device,
            threads=plan.threads,
            warmup=plan.warmup,
            iterations=plan.iterations,
            precision=what.precision,
            dtype=what.dtype,
            channels_last=what.channels_last,
            seed=what.seed,
            checkpoint=what.checkpoint,
            inputs=what.inputs,
            **dict(step),
            strict=strict,
            progress=progress,
        )
    _options.deliver(record, names, out, view)
