"""``mem``: what a model's memory holds, measured or predicted, and its structure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.cli import _options, _peers
from layerbench.cli._generated import fields
from layerbench.records.bounds import Count
from layerbench.records.memory import Optimizer
from layerbench.records.options import OUTCOME, WHAT_RUNS, option, spelling
from layerbench.records.view import View
from layerbench.records.workload import StepOptions

if TYPE_CHECKING:
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.workload import Workload

    Record = Structure | MemoryReport | MemoryEstimate

NAME = "mem"

WHAT = "What to report"
ROWS_ALONE = ("csv", "json")


def command(
    named_model: _options.NamedModel = None,
    named_input: _options.NamedInput = None,
    *,
    what: Annotated[_options.WorkloadOptions, fields(omit=("mode", "compile", "cuda_graph"))],
    train: Annotated[
        bool,
        option(
            "A training step (forward, backward, optimizer) instead of inference.", panel=WHAT_RUNS
        ),
    ] = False,
    step: Annotated[StepOptions, fields()],
    ddp: _options.Ddp = False,
    optimizer: Annotated[
        Optimizer | None,
        option(
            "sgd, momentum, adam, adamw, rmsprop or adagrad; needs --train.",
            panel=WHAT_RUNS,
            default_text="sgd with --train",
        ),
    ] = None,
    struct: Annotated[
        bool,
        option(
            "The structure instead: shapes, parameters, FLOPs. Nothing is allocated.", panel=WHAT
        ),
    ] = False,
    device: Annotated[
        str | None,
        option(
            "Device to measure on, or a GPU to predict for: t4, rtx4090, FILE.toml, ... "
            "(`layerbench devices`). Without such a device, cuda gives a prediction for a GPU that "
            "is not named.",
            panel=WHAT,
            metavar="DEVICE|CARD",
            default_text="cpu",
        ),
    ] = None,
    predict: Annotated[bool, option("Predict for cuda even if there is one.", panel=WHAT)] = False,
    gpu_memory: Annotated[
        int | None,
        option(
            "Say whether it fits into this much, such as 24GiB, and the largest batch that does. "
            "Predicts. A named GPU's is known.",
            panel=WHAT,
            metavar="SIZE",
        ),
    ] = None,
    with_: _peers.With = None,
    without: _peers.Without = None,
    columns: _peers.Columns = None,
    lines: _peers.Lines = None,
    depth: Annotated[
        Count | None,
        option(
            "Show modules down to this depth; 1 is the model's children.",
            panel=OUTCOME,
            default_text="all",
        ),
    ] = None,
    out: Annotated[Path | None, _options.out("DIR/<model>_<input>.*")] = None,
    formats: _options.Formats = None,
    view: Annotated[View, fields(omit=("depth", "sentences", "kernels"))],
    quiet: _options.Quiet = False,
) -> None:
    """Report a model's memory layer by layer, measured or predicted for a GPU, or its structure.

    On a terminal it shows the first screen of the report: the peak or the totals, and the largest
    layers and types.

    For --compile and --cuda-graph see timer and compare --live.
    """
    from layerbench import reporters
    from layerbench.errors import UsageError
    from layerbench.store import paths, reading, writing

    what = _options.as_named(what, named_model, named_input)
    names = _options.checked_formats(formats, out)
    if struct and (train or predict or device or gpu_memory):
        raise UsageError("--struct says nothing of memory: leave the other questions out")
    if optimizer is not None and not train:
        raise UsageError("--optimizer belongs to a training step: add --train")
    if ddp and not train:
        raise UsageError("--ddp belongs to a training step: add --train")
    for name in () if train else sorted(step.model_fields_set):
        raise UsageError(f"{spelling(StepOptions, name)} belongs to a training step: add --train")
    predicted = predict or gpu_memory is not None
    report: _peers.Report = "structure" if struct else "prediction" if predicted else "memory"
    beside = _peers.beside(report, with_, without, columns, lines)

    # After the cheap checks: this loads torch.
    from layerbench.analysis.views import down_to
    from layerbench.cli._progress import shown

    chosen = (optimizer or "sgd") if train else None
    workload = what.workload(mode="train" if train else "eval").with_step(step, ddp=ddp)
    with shown(workload.model, quiet) as progress:
        if struct:
            record: Record = _structure(workload, beside)
        elif predicted or _is_elsewhere(device):
            _peers.check_no_lines(beside)
            record = _estimate(workload, chosen, device, gpu_memory, progress)
        else:
            if ddp:
                raise UsageError(
                    "--ddp is for predictions, and one process is measured here: name a GPU "
                    "with --device, or add --gpu-memory"
                )
            record = _measured(workload, chosen, device, beside)
    _options.say_what_is_not_shown(record, view)
    if out is None:
        for name in names:
            shown_record = down_to(record, depth)
            _options.show(name, shown_record, view)
            _say_what_is_left_out(name, record, shown_record)
        return
    place = reading.apart(paths.place(record, out), record)
    for name in names:
        # JSON is there to compute with, so it is whole.
        shown_record = record if name == "json" else down_to(record, depth)
        path = place.with_suffix(reporters.suffix(name))
        writing.write_text(path, reporters.render(name, shown_record, view))
        typer.echo(str(path))
        _say_what_is_left_out(name, record, shown_record)


def _say_what_is_left_out(name: str, whole: Record, shown: Record) -> None:
    """Say how many rows are missing where nobody would see it: a format of rows alone."""
    missing = len(whole.rows) - len(shown.rows)
    if missing and name in ROWS_ALONE:
        typer.echo(
            f"{name} has {len(shown.rows)} of {len(whole.rows)} rows: --depth leaves out those of "
            "deeper modules",
            err=True,
        )


def _structure(workload: Workload, beside: _peers.Beside) -> Structure:
    from layerbench.profilers.structure import profile_structure

    return profile_structure(workload, torchinfo=beside.columns)


def _measured(
    workload: Workload,
    optimizer: Any,  # noqa: ANN401 - a Literal
    device: str | None,
    beside: _peers.Beside,
) -> MemoryReport:
    from layerbench.api.memory import measure_memory
    from layerbench.environment import devices

    return measure_memory(
        workload,
        devices.get(device or "cpu"),
        optimizer=optimizer,
        memlab=beside.memlab,
        lines=beside.lines,
    )


def _estimate(
    workload: Workload,
    optimizer: Any,  # noqa: ANN401 - a Literal
    device: str | None,
    memory_bytes: int | None,
    progress: Any,  # noqa: ANN401 - a Progress
) -> MemoryEstimate:
    from layerbench.profilers.memory.largest_batch import with_fit
    from layerbench.profilers.memory.predicted import card_for, estimated
    from layerbench.profilers.memory.run_for_gpu import run_for_gpu

    card = card_for(device or "cuda")
    run = run_for_gpu(workload, optimizer=optimizer)
    estimate = estimated(workload, optimizer, run, card)
    if memory_bytes is None and card is not None:
        memory_bytes = card.memory_bytes
    if memory_bytes is None:
        return estimate
    return with_fit(estimate, memory_bytes, run=run, progress=progress)


def _is_elsewhere(device: str | None) -> bool:
    """Whether the device is a named GPU, or a CUDA one that this machine does not have."""
    from layerbench.environment import devices
    from layerbench.environment.cards.naming import meant

    if meant(device) is not None:
        return True
    wanted = (device or "cpu").strip().lower()
    present = devices.names()
    return wanted.partition(":")[0] == "cuda" and not any(
        name.startswith("cuda") for name in present
    )
