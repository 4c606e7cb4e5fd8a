"""``layerbench estimate training-time``: how long a training will take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.errors import at_least

NAME = "estimate training-time"

PLAN = "How it is measured"


def command(
    model: _options.Classifier = "resnet",
    data: Annotated[
        str,
        typer.Option(
            help="cifar100, imagenet (any set with a folder for each class), digits, synthetic.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "synthetic",
    data_dir: _options.DataDir = Path("data"),
    download: _options.Download = False,
    size: _options.Size = None,
    batch: _options.BatchSize = 8,
    channels_last: _options.ChannelsLast = False,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of images that an epoch trains on.",
            show_default="as many as the data set has",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    val_samples: Annotated[
        int | None,
        typer.Option(
            "--val-samples",
            "--val_samples",
            help="Number of images validated after each epoch.",
            show_default="as many as the data set has; with --samples none",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(rich_help_panel=_options.WORKLOAD, help="Epochs of the training.")
    ] = 3,
    precision: Annotated[
        str,
        typer.Option(
            help="Number format: float32, or by autocast bfloat16 or float16.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "float32",
    device: _options.Device = None,
    threads: _options.Threads = None,
    workers: _options.Workers = 0,
    warmup: Annotated[
        int, typer.Option(help="Number of steps that do not count.", rich_help_panel=PLAN)
    ] = 5,
    steps: Annotated[int, typer.Option(help="Steps measured at least.", rich_help_panel=PLAN)] = 40,
    seconds: Annotated[
        float, typer.Option(help="Seconds measured at least.", rich_help_panel=PLAN)
    ] = 20.0,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the weights, the order and the images.", rich_help_panel=PLAN),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/<device>/training-time_<model>_<data>_<size>_b<batch>.*; without it "
            "the report goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: _options.Formats = None,
    quiet: _options.Quiet = False,
) -> None:
    """Measure some steps of a training, data loading included, and extrapolate with an interval.

    Forward and backward are measured each. What is assumed is said.
    """
    from layerbench.store import paths

    names = _options.checked_formats(formats, out)
    for option, value, least in (
        ("--warmup", warmup, 0),
        ("--steps", steps, 2),
        ("--workers", workers, 0),
        ("--val-samples", val_samples or 0, 0),
    ):
        at_least(option, value, least)

    # After the cheap checks: this loads torch.
    from layerbench.api import training
    from layerbench.cli._progress import shown

    with shown(model, quiet) as progress:
        record = training.estimate_training_time(
            model,
            data=data,
            data_dir=data_dir,
            download=download,
            size=_options.size_of(size),
            batch=batch,
            channels_last=channels_last,
            samples=samples,
            val_samples=val_samples,
            epochs=epochs,
            precision=_options.one_of("--precision", precision, _options.PRECISIONS),
            device=device,
            threads=threads,
            workers=workers,
            warmup=warmup,
            steps=steps,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    _options.deliver(record, names, None if out is None else paths.place(record, out))
