"""``python train.py`` and ``layerbench train``: epochs on a data set, and what they cost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.errors import UsageError, at_least
from layerbench.records.defaults import MOST_PIXELS

NAME = "train"

LEARNING = "How it learns"
OUTCOME = "What comes out"


def command(
    model: _options.Classifier = "resnet",
    phase: Annotated[
        int,
        typer.Option(
            help="1: ImageNet-1K from scratch. 2: fine-tuning on CIFAR-100.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = 2,
    data: _options.Data = None,
    data_dir: _options.DataDir = Path("data"),
    download: _options.Download = False,
    samples: _options.Samples = None,
    size: _options.Size = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--no-pretrained",
            help="Begin with published weights, or with random ones.",
            show_default="phase 2: where there are any; phase 1: random",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    channels_last: _options.ChannelsLast = False,
    batch_size: _options.BatchSize = 128,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs to train at most.", show_default="50", rich_help_panel=LEARNING),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="The largest learning rate, of AdamW.",
            show_default="0.001",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            "--weight_decay",
            "--weight-decay",
            help="Weight decay of AdamW.",
            show_default="0.1",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            "--warmup_epochs",
            "--warmup-epochs",
            help="Epochs in which the learning rate climbs; then it falls to 0 linearly.",
            show_default="phase 1: 5, phase 2: 1, at most a tenth of the epochs",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Epochs without a better validation accuracy before it stops; 0: never.",
            show_default="10",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Number format: float32, or by autocast bfloat16 or float16.",
            rich_help_panel=LEARNING,
        ),
    ] = "float32",
    limit: Annotated[
        int | None,
        typer.Option(
            help="Batches an epoch at most, for a trial.",
            show_default="all",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the weights, the order and the augmentation.", rich_help_panel=LEARNING
        ),
    ] = 0,
    unreadable: Annotated[
        str,
        typer.Option(
            help="What an image that cannot be read does: fatal, or skip (named and counted).",
            rich_help_panel=LEARNING,
        ),
    ] = "fatal",
    most_pixels: _options.MostPixels = MOST_PIXELS,
    device: _options.Device = None,
    threads: _options.Threads = None,
    workers: _options.Workers = 0,
    output_dir: Annotated[
        Path,
        typer.Option(
            "--output_dir",
            "--output-dir",
            metavar="DIR",
            help="The run is written to DIR/<model>_<phase>_<time>/.",
            rich_help_panel=OUTCOME,
        ),
    ] = Path("outputs"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the last unfinished run of this model and phase, if there is one.",
            rich_help_panel=OUTCOME,
        ),
    ] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            "--resume_from",
            "--resume-from",
            metavar="DIR",
            help="Go on with the run in this folder.",
            rich_help_panel=OUTCOME,
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            "--checkpoint_minutes",
            "--checkpoint-minutes",
            help="Minutes between checkpoints within an epoch; 0 writes one after every step.",
            rich_help_panel=OUTCOME,
        ),
    ] = 10.0,
    points: Annotated[
        bool,
        typer.Option(
            "--points/--no-points",
            help="In the end, measure the trained model's latency and memory by batch size.",
            rich_help_panel=OUTCOME,
        ),
    ] = True,
    quiet: _options.Quiet = False,
) -> None:
    """Train or fine-tune a classifier; logs, metrics, weights, plots and the record are written.

    Several devices: torchrun --nproc-per-node 2 train.py ... The batch is that of each process.
    """
    at_least("--workers", workers, 0)
    if threads is not None:
        at_least("--threads", threads, 1)
    at_least("--most_pixels", most_pixels, 1)
    if checkpoint_minutes < 0:
        raise UsageError("--checkpoint_minutes must not be negative")

    # After the cheap checks: this loads torch.
    from layerbench.cli._progress import beside_report
    from layerbench.training.classification.recipes import recipe_for
    from layerbench.training.classification.run import run_training
    from layerbench.training.classification.setup import RunOptions

    recipe = recipe_for(
        model,
        phase,
        pretrained=pretrained,
        data=data,
        size=_options.size_of(size),
        batch=batch_size,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        patience=patience,
        precision=_options.one_of("--precision", precision, _options.PRECISIONS),
        limit=limit,
        samples=samples,
        channels_last=channels_last,
        unreadable=_options.one_of("--unreadable", unreadable, ("fatal", "skip")),
        seed=seed,
    )
    where = RunOptions(
        device=device,
        data=data_dir,
        outputs=output_dir,
        download=download,
        workers=workers,
        threads=threads,
        resume=resume_from or resume,
        checkpoint_minutes=checkpoint_minutes,
        points=points,
        most_pixels=most_pixels,
    )
    with beside_report(recipe.model, quiet) as progress, told():
        run_training(recipe, where, progress=progress)


@contextmanager
def told() -> Iterator[None]:
    """Let what is logged appear on standard output too; only the first process logs."""
    from layerbench.training.run_folder import PlainFormatter, log

    # Made while a bar may be shown: the bar then makes room for each line.
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter("%(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
