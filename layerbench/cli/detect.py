"""``layerbench detect`` and ``sh detect.sh``: a detector's training, profiled while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.errors import at_least

NAME = "detect"

LEARNING = "How it learns"
OUTCOME = "What comes out"


def command(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Configuration in TOML, one table [training]; options below override it.",
            show_default=".config/config.toml, if it is there",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A torchvision detection model.",
            show_default="fasterrcnn_resnet50_fpn",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--dataset",
            help="pets (Oxford-IIIT Pet), or synthetic.",
            show_default="pets",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data_dir",
            "--data-dir",
            metavar="DIR",
            help="Folder that the data sets lie in.",
            show_default="data",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    download: _options.Download = False,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="Boxes of pets: trimap (the whole animal, with its mask) or xml (its head).",
            show_default="trimap",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes of pets: breed (37) or species (2).",
            show_default="breed",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--no-pretrained",
            help="Begin with torchvision's weights, fetched if they are not there.",
            show_default="random weights",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    min_size: _options.MinSize = None,
    samples: _options.Samples = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Height and width of the synthetic images.",
            show_default="375x500",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch_size",
            "--batch-size",
            "--batch",
            help="Number of images in a step.",
            show_default="2",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            "--num_epochs",
            show_default="1",
            rich_help_panel=LEARNING,
            help="Epochs to train.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Steps an epoch at most, for a trial.",
            show_default="all",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of SGD with momentum.",
            show_default="0.005",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Number format: float32, or by autocast bfloat16 or float16.",
            show_default="float32",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    unreadable: Annotated[
        str | None,
        typer.Option(
            help="What an image does that cannot be read: fatal, or skip (named and counted).",
            show_default="fatal",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    most_pixels: Annotated[
        int | None,
        typer.Option(
            "--most_pixels",
            "--most-pixels",
            help="Pixels of an image at most: a larger one could fill the memory and is not read.",
            show_default="89478485",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the weights, the order and the augmentation.",
            show_default="0",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device: auto, cpu, cuda, cuda:1, xpu or mps.",
            show_default="what the configuration says, else auto",
            rich_help_panel=_options.PLAN,
        ),
    ] = None,
    threads: _options.Threads = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "--num_workers",
            help="Number of further processes that load images.",
            show_default="0",
            rich_help_panel=_options.PLAN,
        ),
    ] = None,
    prefetch_factor: Annotated[
        int | None,
        typer.Option(
            "--prefetch_factor",
            "--prefetch-factor",
            help="Batches that each loading process has ready.",
            show_default="2",
            rich_help_panel=_options.PLAN,
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First try numbers of workers and prefetch factors in short measured stretches, "
            "and go on with the best.",
            rich_help_panel=_options.PLAN,
        ),
    ] = False,
    tune_steps: Annotated[
        int,
        typer.Option(
            "--tune_steps",
            "--tune-steps",
            help="Steps measured with each setting of --tune, at least.",
            rich_help_panel=_options.PLAN,
        ),
    ] = 8,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Number of first steps that count for no figure.",
            show_default="3",
            rich_help_panel=OUTCOME,
        ),
    ] = None,
    profile_steps: Annotated[
        int | None,
        typer.Option(
            "--profile_steps",
            "--profile-steps",
            help="Steps under torch.profiler; they count for no time. 0: none.",
            show_default="5",
            rich_help_panel=OUTCOME,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output_dir",
            "--output-dir",
            metavar="DIR",
            help="The run is written to DIR/detect_<model>_<data>_<time>/.",
            show_default="outputs",
            rich_help_panel=OUTCOME,
        ),
    ] = None,
    save_weights: Annotated[
        bool | None,
        typer.Option(
            "--save_weights/--no-save_weights",
            help="Write the weights at the end.",
            show_default="they are written",
            rich_help_panel=OUTCOME,
        ),
    ] = None,
    quiet: _options.Quiet = False,
) -> None:
    """Fine-tune a detector and take its training apart: where does the time go, what is in the way?

    Waiting for data, copying, forward by backbone, RPN and heads, backward, optimizer; operators
    by part, utilization, memory, and the bottleneck. Report, record, Chrome trace and plot are
    written.
    """
    at_least("--tune_steps", tune_steps, 1)
    # Loads no torch: what is wrong with the configuration is said at once.
    from layerbench.training.detection.config import settled

    recipe, around = settled(
        {
            "model": model,
            "data": data,
            "data_dir": data_dir,
            "download": download or None,
            "boxes": boxes,
            "labels": classes,
            "pretrained": pretrained,
            "min_size": min_size,
            "samples": samples,
            "size": _options.size_of(size),
            "batch": batch_size,
            "epochs": epochs,
            "limit": limit,
            "lr": lr,
            "precision": precision,
            "unreadable": unreadable,
            "most_pixels": most_pixels,
            "seed": seed,
            "device": device,
            "threads": threads,
            "workers": workers,
            "prefetch_factor": prefetch_factor,
            "warmup": warmup,
            "profile_steps": profile_steps,
            "output_dir": output_dir,
            "save_weights": save_weights,
        },
        config,
    )

    from layerbench.cli._progress import shown_in_lines
    from layerbench.cli.train import told
    from layerbench.training.detection.run import REPORT, run_detection

    with shown_in_lines(quiet) as progress, told():
        done = run_detection(recipe, around, tuned=tune, tune_steps=tune_steps, progress=progress)
    typer.echo((done.folder / REPORT).read_text(encoding="utf-8"), nl=False)
