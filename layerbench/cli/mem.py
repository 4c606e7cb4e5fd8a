"""``mem``: what a model's memory holds, measured or predicted, and its structure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.cli import _options
from layerbench.errors import at_least

if TYPE_CHECKING:
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.workload import Workload

    Record = Structure | MemoryReport | MemoryEstimate

NAME = "mem"

WHAT = "What is asked"


def command(
    model: _options.Model = "mobilenet_v2",
    input: _options.Input = None,
    batch: _options.Batch = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="A training step (forward, backward, optimizer) instead of inference.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = False,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, momentum, adam, adamw, rmsprop or adagrad; needs --train.",
            show_default="sgd with --train",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    dtype: _options.Dtype = None,
    channels_last: _options.ChannelsLast = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="DEFAULT or a name of the library's weights: the model as they configure it. "
            "Only a measured run loads them.",
            show_default="random ones",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the weights, the input and what the model draws.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = 0,
    struct: Annotated[
        bool,
        typer.Option(
            "--struct",
            help="The structure instead: shapes, parameters, FLOPs. Nothing is allocated.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where the run is measured. cuda on a machine that has none: a prediction, and "
            "labelled so.",
            show_default="cpu",
            rich_help_panel=WHAT,
        ),
    ] = None,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Predict for cuda even where there is one.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Does it fit into this much, such as 24GiB, and what is the largest batch that "
            "does? Predicts.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Show modules down to this depth; 1 is the model's children.",
            show_default="all",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/<model>_<input>.*; without it the report goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: _options.Formats = None,
    quiet: _options.Quiet = False,
) -> None:
    """Report a model's memory layer by layer, measured or predicted for a GPU, or its structure."""
    from layerbench import reporters
    from layerbench.errors import UsageError
    from layerbench.store import paths, reading, writing
    from layerbench.units import parse_bytes

    names = _options.formats(formats, out)
    for name in names:
        reporters.check(name, profile=False)  # said before anything runs
    if struct and (train or predict or device or gpu_memory):
        raise UsageError("--struct says nothing of memory: leave the other questions out")
    if optimizer is not None and not train:
        raise UsageError("--optimizer belongs to a training step: add --train")
    if depth is not None:
        at_least("--depth", depth, 0)
    memory_bytes = None if gpu_memory is None else parse_bytes(gpu_memory)
    if out is not None:
        writing.check_writable(out)

    # After the cheap checks: this loads torch.
    from layerbench.analysis.views import down_to
    from layerbench.cli._progress import shown
    from layerbench.profilers.optimizers import check_optimizer

    chosen = (optimizer or "sgd") if train else None
    check_optimizer(chosen)
    workload = _options.workload_of(
        {
            "model": model,
            "input": input,
            "batch": batch,
            "mode": "train" if train else "eval",
            "dtype": dtype,
            "channels_last": channels_last,
            "compile": False,
            "weights": weights,
            "seed": seed,
        }
    )
    with shown(workload.model, quiet) as progress:
        if struct:
            record: Record = _structure(workload)
        elif predict or memory_bytes is not None or _is_elsewhere(device):
            record = _estimate(workload, chosen, device, memory_bytes, progress)
        else:
            record = _measured(workload, chosen, device)
    if out is None:
        for name in names:
            _options.say(reporters.render(name, down_to(record, depth)))
        return
    place = reading.apart(paths.place(record, out), record)
    for name in names:
        # JSON is there to compute with, so it is whole.
        shown_record = record if name == "json" else down_to(record, depth)
        path = place.with_suffix(reporters.suffix(name))
        writing.write_text(path, reporters.render(name, shown_record))
        typer.echo(str(path))


def _structure(workload: Workload) -> Structure:
    from layerbench.profilers.structure import profile_structure

    return profile_structure(workload)


def _measured(workload: Workload, optimizer: Any, device: str | None) -> MemoryReport:  # noqa: ANN401 - a Literal
    from layerbench.api.memory import measure_memory
    from layerbench.environment import devices

    return measure_memory(workload, devices.get(device or "cpu"), optimizer=optimizer)


def _estimate(
    workload: Workload,
    optimizer: Any,  # noqa: ANN401 - a Literal
    device: str | None,
    memory_bytes: int | None,
    progress: Any,  # noqa: ANN401 - a Progress
) -> MemoryEstimate:
    from layerbench.profilers.memory.largest_batch import with_fit
    from layerbench.profilers.memory.predicted import check_device, predict

    check_device(device or "cuda")
    estimate = predict(workload, optimizer=optimizer)
    if memory_bytes is None:
        return estimate
    return with_fit(estimate, memory_bytes, progress=progress)


def _is_elsewhere(device: str | None) -> bool:
    """Whether the device is a CUDA one that this machine does not have."""
    from layerbench.environment import devices

    wanted = (device or "cpu").strip().lower()
    present = devices.names()
    return wanted.partition(":")[0] == "cuda" and not any(
        name.startswith("cuda") for name in present
    )
