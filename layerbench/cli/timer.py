"""``timer``: time a model, its blocks and its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _endings, _options, _output
from layerbench.errors import at_least
from layerbench.records.defaults import (
    CAP_FACTOR,
    FUNCTION_ITERATIONS,
    MEASURED_ITERATIONS,
    WARMUP_ITERATIONS,
)

if TYPE_CHECKING:
    from layerbench.api.timing import Measurement
    from layerbench.records.workload import Plan

NAME = "timer"

PLAN = "How it is measured"


def command(
    model: _options.Model = "mobilenet_v2",
    input: _options.Input = None,
    batch: _options.Batch = None,
    mode: Annotated[
        str, typer.Option(help="eval or train (forward only).", rich_help_panel=_options.WORKLOAD)
    ] = "eval",
    dtype: _options.Dtype = None,
    channels_last: _options.ChannelsLast = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="torch.compile; whole model only.", rich_help_panel=_options.WORKLOAD
        ),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="DEFAULT or a name of torchvision's weights; loaded by torchvision. "
            "Random without it: a backbone takes the same time.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the weights, the input and the resampling.",
            rich_help_panel=_options.WORKLOAD,
        ),
    ] = 0,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device: cpu, cuda, cuda:1, xpu or mps.",
            show_default="the accelerator if there is one, else cpu",
            rich_help_panel=PLAN,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Number of intra-op CPU threads.",
            show_default="PyTorch's choice",
            rich_help_panel=PLAN,
        ),
    ] = None,
    warmup: Annotated[
        int,
        typer.Option(help="Number of warm-up rounds, which are not kept.", rich_help_panel=PLAN),
    ] = WARMUP_ITERATIONS,
    iterations: Annotated[
        int,
        typer.Option(
            help="Measured rounds; each runs the model untouched and instrumented.",
            rich_help_panel=PLAN,
        ),
    ] = MEASURED_ITERATIONS,
    function_iterations: Annotated[
        int | None,
        typer.Option(
            help="Further forwards that time functions, such as an add between layers.",
            show_default=f"{FUNCTION_ITERATIONS}, and not more than --iterations",
            rich_help_panel=PLAN,
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(help="Number of fresh processes to measure in.", rich_help_panel=PLAN),
    ] = 1,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="After the iterations go on until the 95 % interval's half-width is this share "
            f"of the median (such as 1%), at most {CAP_FACTOR} times the iterations.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    granularity: Annotated[
        str, typer.Option(help="whole, blocks or layers.", rich_help_panel=PLAN)
    ] = "layers",
    whole: Annotated[
        str | None,
        typer.Option(
            "--w",
            metavar="BOOL",
            help="True: the whole model only; False: layer-wise.",
            show_default=False,
            rich_help_panel=PLAN,
        ),
    ] = None,
    ceilings: Annotated[
        bool,
        typer.Option(
            "--ceilings",
            help="Measure afterwards what the device reaches at best, for plot --kind roofline.",
            rich_help_panel=PLAN,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with status 1, and write nothing, where the machine is busy or the whole "
            "model's verdict is not stable.",
            rich_help_panel=PLAN,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/<device>/<model>_<input>.* and DIR/<device>/layers/...; "
            "without it the report goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="txt, json, csv, md, html, latex, trace (Perfetto), speedscope; several with "
            "commas.",
            show_default="txt,json with --out, else txt",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    keep_samples: Annotated[
        bool,
        typer.Option(
            "--keep-samples",
            help="Write every sample beside the record as .npz; needs --out.",
            rich_help_panel=_options.REPORT,
        ),
    ] = False,
    quiet: _options.Quiet = False,
) -> None:
    """Time a model, its blocks and its layers."""
    from layerbench import reporters
    from layerbench.cli._progress import shown
    from layerbench.errors import UsageError
    from layerbench.store import writing

    names = _options.formats(formats, out)
    if keep_samples and out is None:
        raise UsageError("--keep-samples writes beside the record: give --out DIR")
    plan = _plan(warmup, iterations, processes, threads, until, granularity, whole)
    if function_iterations is not None:
        count = at_least("--function-iterations", function_iterations, 0)
        plan = plan.model_copy(update={"function_iterations": count})
    for name in names:  # said before anything is measured
        reporters.check(name, profile=True, layers=plan.granularity != "whole" and not compile)
    if out is not None:
        writing.check_writable(out)

    # After the cheap checks: this loads torch.
    from layerbench.api import timing
    from layerbench.environment import devices

    where = devices.get(device)
    workload = _options.workload_of(
        {
            "model": model,
            "input": input,
            "batch": batch,
            "mode": mode,
            "dtype": dtype,
            "channels_last": channels_last,
            "compile": compile,
            "weights": weights,
            "seed": seed,
        }
    )
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
            _options.say(reporters.render(name, measured.profile))
    else:
        for path in write(measured, out, names, keep_samples):
            typer.echo(str(path))
    if measured.profile.stop == "interrupted":
        _output.complain("interrupted: the report is of what was measured up to then")
        raise typer.Exit(_endings.INTERRUPTED)


def write(measured: Measurement, out: Path, formats: list[str], keep_samples: bool) -> list[Path]:
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
            reporters.render(name, document).encode("utf-8"),
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


def _plan(
    warmup: int,
    iterations: int,
    processes: int,
    threads: int | None,
    until: str | None,
    granularity: str,
    whole: str | None,
) -> Plan:
    from layerbench.records.workload import Plan
    from layerbench.units import parse_percent

    if whole is not None:
        granularity = "whole" if _options.truth("--w", whole) else "layers"
    return Plan(
        warmup=at_least("--warmup", warmup, 0),
        iterations=at_least("--iterations", iterations, 1),
        processes=at_least("--processes", processes, 1),
        threads=None if threads is None else at_least("--threads", threads, 1),
        until=None if until is None else parse_percent(until),
        granularity=_options.one_of("--granularity", granularity, ("whole", "blocks", "layers")),
    )
