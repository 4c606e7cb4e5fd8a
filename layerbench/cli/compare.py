"""``layerbench compare``: did any layer get slower, really?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.cli import _options
from layerbench.errors import at_least
from layerbench.records.defaults import FEWEST_ROUNDS, MEASURED_ITERATIONS, WARMUP_ITERATIONS

if TYPE_CHECKING:
    from layerbench.profilers.paired import Task
    from layerbench.records.comparison import Comparison

NAME = "compare"

LIVE = "Measuring both now"


def command(
    baseline: Annotated[str, typer.Argument(help="A record, or with --live a model.")],
    contender: Annotated[
        str,
        typer.Argument(
            help="A record, or with --live a model, that is compared with the baseline."
        ),
    ],
    threshold: Annotated[
        str, typer.Option(metavar="PERCENT", help="Changes up to this are the same.")
    ] = "5%",
    same_model: Annotated[
        bool,
        typer.Option(
            "--same-model",
            help="The two are versions of one model, though they go by different names.",
        ),
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Measure both now, in turn: two models in quotes, each with timer's options for "
            'what runs, such as "resnet50 --channels-last".',
            rich_help_panel=LIVE,
        ),
    ] = False,
    iterations: Annotated[
        int,
        typer.Option(
            help="Measured rounds; each runs both, untouched and instrumented.",
            rich_help_panel=LIVE,
        ),
    ] = MEASURED_ITERATIONS,
    warmup: Annotated[
        int,
        typer.Option(help="Number of warm-up rounds, which are not kept.", rich_help_panel=LIVE),
    ] = WARMUP_ITERATIONS,
    processes: Annotated[
        int, typer.Option(help="Number of fresh processes to measure in.", rich_help_panel=LIVE)
    ] = 1,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Status 2 where the machine was too busy to tell; with --live, refuse to measure "
            "while it is busy.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar.", rich_help_panel=LIVE)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/comparison_<what>.*; without it the report goes to the terminal.",
            rich_help_panel=_options.REPORT,
        ),
    ] = None,
    formats: _options.Formats = None,
) -> int:
    """Compare two measurements layer by layer: FASTER, SLOWER, SAME or UNCLEAR.

    Exit status 0 where nothing is SLOWER, 1 where something is, 2 where the two cannot be
    compared. Of comparisons of a model with itself at most 1 % end with 1. A machine that was too
    busy leaves all UNCLEAR, with 0; with --strict, 2.
    """
    from layerbench.units import parse_percent

    share = parse_percent(threshold)
    names = _options.checked_formats(formats, out)
    if not live:
        found = _of_files(
            Path(baseline), Path(contender), share, strict=strict, same_model=same_model
        )
    else:
        at_least("--iterations", iterations, FEWEST_ROUNDS)
        at_least("--warmup", warmup, 0)
        at_least("--processes", processes, 1)
        rounds = {"iterations": iterations, "warmup": warmup, "processes": processes}
        found = _live((baseline, contender), rounds, share, strict=strict, quiet=quiet)
    return say(found, names, out)


def say(comparison: Comparison, formats: list[str], out: Path | None) -> int:
    """Print or write a comparison.

    Returns:
        the exit status: 1 if anything is slower.
    """
    from layerbench.store import paths

    _options.deliver(comparison, formats, None if out is None else paths.place(comparison, out))
    return 1 if comparison.slower else 0


def _of_files(
    baseline: Path,
    contender: Path,
    threshold: float,
    *,
    strict: bool = False,
    same_model: bool = False,
) -> Comparison:
    from layerbench.analysis.comparison import compare
    from layerbench.errors import ComparisonError, UsageError
    from layerbench.records.timing import Profile
    from layerbench.store.reading import read

    for path in (baseline, contender):
        if not path.suffix and not path.exists():
            raise UsageError(f"there is no record {path}; to measure two models, add --live")
    found = compare(
        read(baseline, Profile),
        read(contender, Profile),
        names=(str(baseline), str(contender)),
        threshold=threshold,
        same_model=same_model,
    )
    if strict and found.void:
        raise ComparisonError(f"--strict: {found.void}")
    return found


def _live(
    specs: tuple[str, str], rounds: dict[str, int], threshold: float, *, strict: bool, quiet: bool
) -> Comparison:
    from layerbench.api import comparison
    from layerbench.cli._progress import shown
    from layerbench.errors import ComparisonError, UntrustedError

    first, second = (_task(spec, rounds) for spec in specs)
    with shown("compare", quiet) as progress:
        try:
            found = comparison.measure_live(
                (first, second), names=specs, threshold=threshold, strict=strict, progress=progress
            )
        except UntrustedError as error:  # whose status would say that something is slower
            raise ComparisonError(str(error)) from error
    return found.comparison


def _task(text: str, rounds: dict[str, int]) -> Task:
    """What one quoted model with its options stands for."""
    from layerbench.environment import devices
    from layerbench.profilers.paired import Task
    from layerbench.records.workload import Plan

    given = _parsed(text)
    threads = given["threads"]
    if threads is not None:
        at_least("--threads", threads, 1)
    plan = Plan(threads=threads, **rounds)
    return Task(_options.workload_of(given), plan, devices.get(given["device"]))


def _parsed(text: str) -> dict[str, Any]:
    """The options of ``resnet50 --channels-last`` as ``timer`` reads them."""
    import shlex

    from layerbench.cli import arguments_of
    from layerbench.errors import UsageError

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read {text!r}: {error}") from None
    if words and not words[0].startswith("-"):
        words.insert(0, "--model")
    arguments, said = arguments_of("timer", words)
    for name in said - set(WHAT_RUNS):
        raise UsageError(
            f"{text!r}: --{name.replace('_', '-')} is not for one side: only what runs, where and "
            "on how many threads may differ"
        )
    return arguments


WHAT_RUNS = (
    "model",
    "input",
    "batch",
    "mode",
    "dtype",
    "channels_last",
    "compile",
    "weights",
    "seed",
    "device",
    "threads",
)
