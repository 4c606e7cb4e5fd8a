"""``layerbench train-profile``: one training step taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.errors import at_least
from layerbench.records.defaults import TRAINING_ITERATIONS, TRAINING_WARMUP

NAME = "train-profile"

PLAN = "How it is measured"


def command(
    model: _options.Model = "mobilenet_v2",
    input: _options.Input = None,
    batch: _options.Batch = None,
    optimizer: Annotated[
        str,
        typer.Option(
            help="sgd, momentum, adam, adamw, rmsprop or adagrad.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "sgd",
    dtype: _options.Dtype = None,
    channels_last: _options.ChannelsLast = False,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the weights, the input and what the model draws.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = 0,
    device: _options.Device = None,
    threads: _options.Threads = None,
    warmup: Annotated[
        int,
        typer.Option(help="Number of warm-up rounds, which are not kept.", rich_help_panel=PLAN),
    ] = TRAINING_WARMUP,
    iterations: Annotated[
        int,
        typer.Option(
            help="Measured rounds; each runs a step untouched and one instrumented.",
            rich_help_panel=PLAN,
        ),
    ] = TRAINING_ITERATIONS,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse to measure while the machine is busy.", rich_help_panel=PLAN
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/<device>/<model>_<input>_train_<optimizer>.*; without it the report "
            "goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: _options.Formats = None,
    quiet: _options.Quiet = False,
) -> None:
    """Take a training step apart: data, copy, forward, loss, backward, optimizer, and every layer.

    Forward and backward of every layer, also of in-place ones. The batch is random and is
    copied to the device anew for every step.
    """
    from layerbench.store import paths

    names = _options.checked_formats(formats, out)
    at_least("--warmup", warmup, 0)
    at_least("--iterations", iterations, 1)

    # After the cheap checks: this loads torch.
    from layerbench.api import training
    from layerbench.cli._progress import shown

    with shown(model, quiet) as progress:
        record = training.profile_training(
            model,
            input,
            batch=batch,
            optimizer=optimizer,  # type: ignore[arg-type]
            device=device,
            threads=None if threads is None else at_least("--threads", threads, 1),
            warmup=warmup,
            iterations=iterations,
            dtype=_options.dtype_of(dtype),
            channels_last=channels_last,
            seed=seed,
            strict=strict,
            progress=progress,
        )
    _options.deliver(record, names, None if out is None else paths.place(record, out))
