"""``timer``: time a model, its blocks and its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _endings, _options, _output
from layerbench.records.options import MEASURING, OUTCOME, Device, option
from layerbench.records.view import View
from layerbench.records.workload import Plan

if TYPE_CHECKING:
    from layerbench.api.timing import Measurement

NAME = "timer"


def command(
    *,
    what: _options.WorkloadOptions,
    device: Device = None,
    plan: Plan,
    whole: Annotated[
        bool | None,
        option(
            "True: the whole model only; False: layer-wise.",
            "--w",
            panel=MEASURING,
            metavar="BOOL",
            default_text=False,
        ),
    ] = None,
    ceilings: _options.Ceilings = True,
    strict: _options.Strict = False,
    out: Annotated[
        Path | None, _options.out("DIR/<device>/<model>_<input>.* and DIR/<device>/layers/...")
    ] = None,
    formats: Annotated[
        list[str] | None,
        _options.formats("txt, json, csv, md, html, latex, trace (Perfetto), speedscope"),
    ] = None,
    keep_samples: Annotated[
        bool, option("Write every sample beside the record as .npz; needs --out.", panel=OUTCOME)
    ] = False,
    view: View,
    quiet: _options.Quiet = False,
) -> None:
    """Time a model, its blocks and its layers.

    On a terminal it shows the first screen of the report: what to think of the times, the slowest
    layers and types, and why they are slow.
    """
    from layerbench import reporters
    from layerbench.cli._progress import shown
    from layerbench.errors import UsageError
    from layerbench.store import writing

    names = _options.names_or_usual(formats, out)
    if view.sentences and out is not None and "sentences" not in names:
        # In a file of their own, beside the report.
        names, view = [*names, "sentences"], view.model_copy(update={"sentences": False})
    if keep_samples and out is None:
        raise UsageError("--keep-samples writes beside the record: give --out DIR")
    if whole is not None:
        plan = plan.model_copy(update={"granularity": "whole" if whole else "layers"})
    for name in names:  # said before anything is measured
        reporters.check(name, profile=True, layers=plan.granularity != "whole" and not what.compile)
    if out is not None:
        writing.check_writable(out)

    # After the cheap checks: this loads torch.
    from layerbench.api import timing
    from layerbench.environment import devices

    where = devices.get(device)
    workload = what.workload()
    with shown(workload.model, quiet) as progress:
        measured = timing.measure(
            workload,
            plan,
            where,
            ceilings=ceilings,
            strict=strict,
            progress=progress,
            # Of a strict run nothing is written that is not to be trusted.
            keep_interrupted=not strict,
        )
    if out is None:
        for name in names:
            _options.show(name, measured.profile, view)
    else:
        for path in write(measured, out, names, keep_samples, view):
            typer.echo(str(path))
    if measured.profile.stop == "interrupted":
        _output.complain("interrupted: the report is of what was measured up to then")
        raise typer.Exit(_endings.INTERRUPTED)


def write(
    measured: Measurement,
    out: Path,
    formats: list[str],
    keep_samples: bool,
    view: View,
) -> list[Path]:
    """Write the whole-model report and, if layers were timed, the layers report; all or none.

    Returns:
        the files written.
    """
    from layerbench import reporters
    from layerbench.analysis.aggregation import kept_samples
    from layerbench.store import paths, writing

    record = measured.profile
    places = paths.places(record, out)
    documents = [(places.whole, record.without_layers())]
    if record.layers:
        documents.append((places.layers, record))
    files = [
        (
            stem.with_suffix(reporters.suffix(name)),
            reporters.render(name, document, view).encode("utf-8"),
        )
        for stem, document in documents
        for name in formats
        if document.layers or not reporters.needs_layers(name)
    ]
    if keep_samples:
        path = documents[-1][0].with_suffix(".npz")
        files.append((path, writing.arrays_file(kept_samples(measured.runs))))
    writing.write_all(files)
    return [path for path, _ in files]
