"""``layerbench estimate detection``: what training and inference with detectors will take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._kept import Kept
from layerbench.errors import UsageError, at_least

NAME = "estimate detection"

PLAN = "How it is measured"


def command(
    models: Annotated[
        str,
        typer.Option(
            "--models",
            "--model",
            "-m",
            metavar="all|NAMES",
            help="torchvision's detection models, with commas.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "all",
    batch: _options.BatchSize = 8,
    epochs: Annotated[
        int, typer.Option(rich_help_panel=_options.WORKLOAD, help="Epochs of the training.")
    ] = 3,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of images in an epoch; a data set that is read has its own.",
            show_default="50000 made-up ones",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="N|HxW",
            help="Height and width of the made-up images; detectors resize them.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "224",
    min_size: _options.MinSize = None,
    data: _options.BoxedData = "synthetic",
    data_dir: _options.DataDir = Path("data"),
    download: _options.Download = False,
    boxes: _options.BoxesFrom = "trimap",
    classes: _options.Labels = "breed",
    precision: _options.Autocast = "float32",
    device: _options.Device = None,
    threads: _options.Threads = None,
    workers: _options.Workers = 0,
    warmup: Annotated[
        int,
        typer.Option(
            help="Training steps that do not count; one where a step takes over 20 s.",
            rich_help_panel=PLAN,
        ),
    ] = 2,
    steps: Annotated[
        int,
        typer.Option(
            help="Training steps measured at least; two where a step takes over 20 s.",
            rich_help_panel=PLAN,
        ),
    ] = 5,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds of training for each detector, at least; inference takes half as long.",
            rich_help_panel=PLAN,
        ),
    ] = 10.0,
    content: Annotated[
        bool,
        typer.Option(
            "--content/--no-content",
            help="Measure how the latency depends on proposals and detections.",
            rich_help_panel=PLAN,
        ),
    ] = True,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Trace the tensors of a training step.",
            rich_help_panel=PLAN,
        ),
    ] = True,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the weights, the images and their order.", rich_help_panel=PLAN),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/<device>/detection_<models>_<data>_<size>_b<batch>.*; without it the "
            "report goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: _options.Formats = None,
    quiet: _options.Quiet = False,
) -> None:
    """Memory, forward, backward, training time and inference time of torchvision's detectors.

    One table for all of them. Training and inference are measured and extrapolated with an
    interval; proposals and detections are stated, and the time as a function of them. The reports
    of --out are written after each detector: what is ended early has those that were measured.
    """
    from layerbench.store import paths

    names = _options.checked_formats(formats, out)
    for option, value, least in (
        ("--warmup", warmup, 0),
        ("--steps", steps, 2),
        ("--workers", workers, 0),
        ("--batch", batch, 1),
        ("--epochs", epochs, 1),
        ("--threads", 1 if threads is None else threads, 1),
        ("--min_size", 1 if min_size is None else min_size, 1),
    ):
        at_least(option, value, least)
    wanted = [name.strip() for name in models.split(",") if name.strip()]
    if not wanted:
        raise UsageError("--models takes all, or names with commas")
    height_width = _options.size_of(size)
    assert height_width is not None

    # After the cheap checks: this loads torch.
    from layerbench.cli._progress import shown
    from layerbench.records.detection_estimate import DetectionEstimates
    from layerbench.training.detection.estimate import estimate_detectors
    from layerbench.training.detection.options import SAMPLES, STILL, EstimateOptions
    from layerbench.training.detection.step import Learning

    options = EstimateOptions(
        batch=batch,
        epochs=epochs,
        samples=SAMPLES if samples is None and data == "synthetic" else samples,
        size=height_width,
        min_size=min_size,
        data=data,
        data_dir=data_dir,
        download=download,
        boxes=_options.one_of("--boxes", boxes, _options.BOXES_FROM),
        labels=_options.one_of("--classes", classes, _options.LABELS),
        learning=Learning(
            lr=STILL, precision=_options.one_of("--precision", precision, _options.PRECISIONS)
        ),
        workers=workers,
        warmup=warmup,
        steps=steps,
        seconds=seconds,
        content=content,
        memory=memory,
        seed=seed,
    )
    kept = Kept[DetectionEstimates](
        names, None if out is None else lambda record: paths.place(record, out)
    )
    with shown("estimate", quiet) as progress:
        record = estimate_detectors(
            [] if wanted == ["all"] else wanted,
            options,
            device=device,
            threads=threads,
            progress=progress,
            so_far=kept.so_far,
        )
    kept.deliver(record)
