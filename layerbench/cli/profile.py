"""``layerbench profile``: time, structure and memory of every layer in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _endings, _options, _output
from layerbench.cli._generated import fields
from layerbench.records.options import Device
from layerbench.records.view import View
from layerbench.records.workload import Plan

NAME = "profile"


def command(
    named_model: _options.NamedModel = None,
    named_input: _options.NamedInput = None,
    *,
    what: Annotated[_options.WorkloadOptions, fields(omit=("mode", "compile", "cuda_graph"))],
    device: Device = None,
    plan: Annotated[Plan, fields(omit=("granularity",))],
    ceilings: _options.Ceilings = True,
    strict: _options.Strict = False,
    out: Annotated[Path | None, _options.out("DIR/<device>/<model>_<input>_joined.*")] = None,
    formats: _options.Formats = None,
    view: View,
    quiet: _options.Quiet = False,
) -> None:
    """Measure time, structure and memory of a model in one go, and write one report.

    It begins with the first screen of the times and the peak of the memory. Its table says of each
    layer what the three know.

    For --compile and --cuda-graph see timer and compare --live.
    """
    what = _options.as_named(what, named_model, named_input)
    names = _options.checked_formats(formats, out)

    # After the cheap checks: this loads torch.
    from layerbench.api import timing
    from layerbench.api.bundle import INTERRUPTED, with_structure_and_memory
    from layerbench.cli._progress import measuring
    from layerbench.environment import devices

    where = devices.get(device)
    workload = what.workload()
    # Of a strict run nothing is written that is not to be trusted.
    keep = not strict
    with measuring(workload.model, quiet, device) as progress:
        measured = timing.measure(
            workload,
            plan,
            where,
            ceilings=ceilings,
            strict=strict,
            progress=progress,
            keep_interrupted=keep,
        )
        record = with_structure_and_memory(
            measured.profile, where, progress=progress, keep_interrupted=keep
        )
    _options.deliver(record, names, out, view)
    for what_is_not, why in record.absent.items():
        _output.complain(f"{what_is_not} is not in the report: {why}")
    if INTERRUPTED in record.absent.values():
        raise typer.Exit(_endings.INTERRUPTED)
