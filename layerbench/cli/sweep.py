"""``layerbench sweep``: latency and memory over input sizes and batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._kept import Kept
from layerbench.errors import UsageError

NAME = "sweep"

PLAN = "How it is measured"


def command(
    models: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Model specs with commas; vit, deit, swin and resnet are timm's base models.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "vit,deit,swin,resnet",
    batches: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Batch sizes, with commas; 1,2,4,...,256 doubles.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = "1,2,4,8,16,32",
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Heights and widths of the images, with commas.",
            show_default="what each model is meant for",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    dtype: _options.Dtype = None,
    channels_last: _options.ChannelsLast = False,
    device: _options.Device = None,
    threads: _options.Threads = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds for each point, about. The climb ends where 8 forwards would "
            "take longer.",
            rich_help_panel=PLAN,
        ),
    ] = 20.0,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Finished trainings, such as outputs: their accuracy is set against GFLOPs.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/sweep.* and the plots; without it the table goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="txt, json, csv, md, html; several with commas.",
            show_default="txt,json,csv,md with --out, else txt",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    quiet: _options.Quiet = False,
) -> None:
    """Forward latency, memory and FLOPs over models, input sizes and batch sizes.

    Climbs until a batch does not fit, or takes too long, and says so. The reports of --out are
    written after each model and size: a sweep that is ended early has what was measured.
    """
    from layerbench.store import writing

    default = None if out is None or formats is not None else "txt,json,csv,md"
    names = _options.checked_formats(formats or default, out)
    specs = [name.strip() for name in models.split(",") if name.strip()]
    if not specs:
        raise UsageError("--models names no model")
    if not seconds > 0:
        raise UsageError(f"--seconds must be positive, got {seconds:g}")
    sides = None if sizes is None else _options.numbers("--sizes", sizes)
    counts = _options.numbers("--batches", batches)

    # After the cheap checks: this loads torch.
    from layerbench.api import sweep
    from layerbench.cli._progress import shown
    from layerbench.records.sweep import Sweep

    kept = Kept[Sweep](names, None if out is None else lambda _: out / "sweep")
    with shown("sweep", quiet) as progress:
        record = sweep.sweep(
            specs,
            batches=counts,
            sizes=sides,
            dtype=_options.dtype_of(dtype),
            channels_last=channels_last,
            device=device,
            threads=threads,
            seconds=seconds,
            runs=runs,
            progress=progress,
            so_far=kept.so_far,
        )
    kept.deliver(record)
    if out is not None:
        from layerbench import plots

        for name, picture in plots.of_sweep(record).items():
            writing.write_bytes(out / f"{name}.png", picture)
            typer.echo(str(out / f"{name}.png"))
