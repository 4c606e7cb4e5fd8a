"""``layerbench compare``: did any layer get slower, really?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.cli import _options
from layerbench.cli._generated import fields
from layerbench.errors import UsageError, at_least
from layerbench.records.defaults import FEWEST_ROUNDS
from layerbench.records.options import option
from layerbench.records.view import View
from layerbench.records.workload import Plan

if TYPE_CHECKING:
    from layerbench.profilers.paired import Task
    from layerbench.records.comparison import Comparison
    from layerbench.records.latency_comparison import LatencyComparison

NAME = "compare"

LIVE = "Measuring both now"
# Options of `timer` that may differ between the two.
ONE_SIDES = {*_options.WorkloadOptions.model_fields, "device", "threads"}


def command(
    baseline: Annotated[str, typer.Argument(help="A record, or with --live a model.")],
    contender: Annotated[
        str,
        typer.Argument(
            help="A record, or with --live a model, that is compared with the baseline."
        ),
    ],
    *,
    threshold: _options.Threshold = _options.SAME,
    same_model: Annotated[
        bool, option("The two are versions of one model, though they go by different names.")
    ] = False,
    live: Annotated[
        bool,
        option(
            "Measure both now, in turn: two models in quotes, each with timer's options for what "
            'runs, such as "resnet50 --channels-last".',
            panel=LIVE,
        ),
    ] = False,
    plan: Annotated[Plan, fields("iterations", "warmup", "processes", panel=LIVE)],
    strict: Annotated[
        bool,
        option(
            "Status 2 if the machine was too busy to tell; with --live, refuse to measure while "
            "it is busy."
        ),
    ] = False,
    quiet: Annotated[_options.Quiet, fields(panel=LIVE)] = False,
    out: Annotated[Path | None, _options.out("DIR/comparison_<what>.*")] = None,
    formats: _options.Formats = None,
    view: Annotated[View, fields("full", "top", "type", "depth", "kernels")],
) -> int:
    """Compare two measurements layer by layer: FASTER, SLOWER, SAME or UNCLEAR.

    Of joined records the times are compared; memory and FLOPs of both are noted. A time that
    `estimate latency` predicted is compared with another one, or with a measured one.

    Exit status 0 if nothing is SLOWER, 1 if something is, 2 if the two cannot be compared. Of
    comparisons of a model with itself at most 1 % end with 1. If the machine was too busy, all rows
    are UNCLEAR, and the status is 0, or 2 with --strict.
    """
    names = _options.checked_formats(formats, out)
    if not live:
        compared: Comparison | LatencyComparison = _of_files(
            Path(baseline), Path(contender), threshold, strict=strict, same_model=same_model
        )
    else:
        at_least("--iterations", plan.iterations, FEWEST_ROUNDS)
        compared = _live((baseline, contender), plan, threshold, strict=strict, quiet=quiet)
    return say(compared, names, out, view)


def say(
    comparison: Comparison | LatencyComparison, formats: list[str], out: Path | None, view: View
) -> int:
    """Print or write a comparison.

    Returns:
        the exit status: 1 if anything is slower.
    """
    _options.deliver(comparison, formats, out, view)
    return 1 if comparison.slower else 0


def _of_files(
    baseline: Path,
    contender: Path,
    threshold: float,
    *,
    strict: bool = False,
    same_model: bool = False,
) -> Comparison | LatencyComparison:
    from layerbench.api.comparing import compare
    from layerbench.errors import ComparisonError

    for path in (baseline, contender):
        if not path.suffix and not path.exists():
            raise UsageError(f"there is no record {path}; to measure two models, add --live")
    comparison = compare(baseline, contender, threshold=threshold, same_model=same_model)
    if strict and comparison.disturbed:
        raise ComparisonError(f"--strict: {comparison.disturbed}")
    return comparison


def _live(
    specs: tuple[str, str], plan: Plan, threshold: float, *, strict: bool, quiet: bool
) -> Comparison:
    from layerbench.api import comparison
    from layerbench.cli._progress import measuring
    from layerbench.errors import ComparisonError, UntrustedError

    first, second = (_task(spec, plan) for spec in specs)
    places = (str(task.device.torch_device) for task in (first, second))
    with measuring("compare", quiet, *places) as progress:
        try:
            measured = comparison.measure_live(
                (first, second), names=specs, threshold=threshold, strict=strict, progress=progress
            )
        except UntrustedError as error:  # whose status would say that something is slower
            raise ComparisonError(str(error)) from error
    return measured.comparison


def _task(text: str, plan: Plan) -> Task:
    """What one quoted model with its options stands for."""
    from layerbench.environment import devices
    from layerbench.profilers.paired import Task

    side = _parsed(text)
    plan = plan.model_copy(update={"threads": side["plan"].threads})
    return Task(side["what"].workload(), plan, devices.get(side["device"]))


def _parsed(text: str) -> dict[str, Any]:
    """What `timer` gets of ``resnet50 --channels-last``."""
    import shlex

    from layerbench.cli import arguments_of

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read {text!r}: {error}") from None
    if words and not words[0].startswith("-"):
        words.insert(0, "--model")
    arguments, said = arguments_of("timer", words)
    for name in said - ONE_SIDES:
        raise UsageError(
            f"{text!r}: --{name.replace('_', '-')} is not for one side: only what runs, where and "
            "on how many threads may differ"
        )
    return arguments
