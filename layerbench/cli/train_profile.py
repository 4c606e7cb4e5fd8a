"""``layerbench train-profile``: one training step taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.defaults import TRAINING_ITERATIONS, TRAINING_WARMUP

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
    dtype: _options.Dtype = "float32",
    channels_last: _options.ChannelsLast = False,
    seed: Annotated[
        int, typer.Option(help="Of weights and input.", rich_help_panel=_options.WORKLOAD)
    ] = 0,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, xpu, mps.",
            show_default="the accelerator if there is one, else cpu",
            rich_help_panel=PLAN,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Intra-op CPU threads.", show_default="PyTorch's choice", rich_help_panel=PLAN
        ),
    ] = None,
    warmup: Annotated[
        int, typer.Option(help="Warm-up rounds, not kept.", rich_help_panel=PLAN)
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
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="txt, json, csv, md, html; several with commas.",
            show_default="txt,json with --out, else txt",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    quiet: _options.Quiet = False,
) -> None:
    """Take a training step apart: data, copy, forward, loss, backward, optimizer, and every layer.

    Forward and backward of every layer, also of in-place ones. The batch is random and is
    copied to the device anew for every step.
    """
    from layerbench import reporters, store

    names = _options.formats(formats, out)
    for name in names:
        reporters.check(name, profile=False)
    _options.at_least("--warmup", warmup, 0)
    _options.at_least("--iterations", iterations, 1)
    if out is not None:
        store.check_writable(out)

    # After the cheap checks: this loads torch.
    from layerbench import api
    from layerbench.cli._progress import shown

    with shown(model, quiet) as progress:
        record = api.profile_training(
            model,
            input,
            batch=batch,
            optimizer=optimizer,  # type: ignore[arg-type]
            device=device,
            threads=None if threads is None else _options.at_least("--threads", threads, 1),
            warmup=warmup,
            iterations=iterations,
            dtype=_options.one_of("--dtype", dtype, _options.DTYPES),
            channels_last=channels_last,
            seed=seed,
            strict=strict,
            progress=progress,
        )
    for name in names:
        if out is None:
            typer.echo(reporters.render(name, record), nl=False)
            continue
        path = store.place(record, out).with_suffix(reporters.suffix(name))
        store.write_text(path, reporters.render(name, record))
        typer.echo(str(path))
