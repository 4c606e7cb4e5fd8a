"""``layerbench sweep``: latency and memory over input sizes and batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._cluster import ClusterOptions
from layerbench.cli._kept import Kept
from layerbench.errors import UsageError
from layerbench.records.options import MEASURING, OUTCOME, WHAT_RUNS, Device, Threads, option
from layerbench.records.view import View
from layerbench.records.workload import ChannelsLast

NAME = "sweep"

FORMATS = "txt,json,csv,md"


def command(
    *,
    models: Annotated[
        list[str],
        option(
            "Model specs with commas; vit, deit, swin and resnet are timm's base models.",
            panel=WHAT_RUNS,
            metavar="LIST",
            default_text="vit,deit,swin,resnet",
        ),
    ] = ["vit", "deit", "swin", "resnet"],  # noqa: B006 - nobody changes it
    batches: Annotated[
        list[int],
        option(
            "Batch sizes, with commas; 1,2,4,...,256 doubles.",
            panel=WHAT_RUNS,
            metavar="NUMBERS",
            default_text="1,2,4,8,16,32",
        ),
    ] = [1, 2, 4, 8, 16, 32],  # noqa: B006
    sizes: Annotated[
        list[int] | None,
        option(
            "Heights and widths of the images, with commas.",
            panel=WHAT_RUNS,
            metavar="NUMBERS",
            default_text="what each model is meant for",
        ),
    ] = None,
    precision: _options.Computed = None,
    dtype: _options.Dtype = None,
    channels_last: ChannelsLast = False,
    checkpoint: _options.Checkpoint = None,
    device: Device = None,
    on: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    threads: Threads = None,
    seconds: Annotated[
        float,
        option(
            "Seconds for each point, about. The batch grows until 8 forwards would take longer.",
            panel=MEASURING,
            gt=0,
        ),
    ] = 20.0,
    runs: Annotated[
        Path | None,
        option(
            "Finished trainings, such as outputs: their accuracy is set against GFLOPs.",
            panel=OUTCOME,
            metavar="DIR",
        ),
    ] = None,
    out: Annotated[Path | None, _options.out("DIR/sweep.* and the plots")] = None,
    formats: Annotated[
        list[str] | None, _options.formats("txt, json, csv, md, html", usual=FORMATS)
    ] = None,
    view: Annotated[View, _options.on_first_screen("points")],
    quiet: _options.Quiet = False,
) -> None:
    """Forward latency, memory and FLOPs over models, input sizes and batch sizes.

    The batch grows until it does not fit or takes too long, and the report says which. Reports of
    --out are written after each model and size, so an interrupted sweep keeps its points.

    For --compile and --cuda-graph see timer and compare --live.
    """
    from layerbench.store import writing

    names = _options.checked_formats(formats, out, usual=FORMATS)

    if on.check(device, out):
        if runs is not None:
            raise UsageError("--runs is for sweeps of this machine: leave it out with --cluster")
        from layerbench.cli import _cluster_sweep

        _cluster_sweep.sweep(
            on,
            models,
            sizes or [],
            batches,
            seconds,
            names=names,
            out=out,
            view=view,
            quiet=quiet,
        )
        return

    # After the cheap checks: this loads torch.
    from layerbench.api import sweep
    from layerbench.cli._progress import measuring

    kept = Kept(names, out, view)
    with measuring("sweep", quiet, device) as progress:
        record = sweep.sweep(
            models,
            batches=batches,
            sizes=sizes,
            precision=precision,
            dtype=dtype,
            channels_last=channels_last,
            checkpoint=checkpoint,
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
