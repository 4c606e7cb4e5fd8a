"""``layerbench check``: does a committed report still hold here?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._generated import fields
from layerbench.records.bounds import Positive
from layerbench.records.options import option
from layerbench.records.view import View

if TYPE_CHECKING:
    from layerbench.records.comparison import Comparison
    from layerbench.records.timing import Profile
    from layerbench.records.workload import Plan

NAME = "check"

MEASURE = "Measuring it again"
STATIC_PLACES = ("stats", "cpu/stats", "model_structures", "memory_reports")


def command(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A record to measure again, such as stats/*/layers/X.json; with --static any "
            f"number of records and folders, {', '.join(STATIC_PLACES)} if none is named.",
            show_default=False,
        ),
    ] = None,
    *,
    static: Annotated[
        bool,
        option(
            "Measure nothing: compute shapes, parameters, FLOPs and bytes again, and compare them "
            "with the reports to the byte."
        ),
    ] = False,
    threshold: Annotated[_options.Threshold, fields(panel=MEASURE)] = _options.SAME,
    iterations: Annotated[
        Positive | None,
        option("Number of measured rounds.", panel=MEASURE, default_text="the record's"),
    ] = None,
    processes: Annotated[
        Positive | None,
        option(
            "Number of fresh processes to measure in.", panel=MEASURE, default_text="the record's"
        ),
    ] = None,
    device: Annotated[
        str | None,
        option("Device to measure on: cpu, cuda, ...", panel=MEASURE, default_text="the record's"),
    ] = None,
    out: Annotated[
        Path | None, _options.out("DIR/comparison_<what>.*"), fields(panel=MEASURE)
    ] = None,
    formats: Annotated[_options.Formats, fields(panel=MEASURE)] = None,
    view: Annotated[View, fields("full", "top", "type", "depth", panel=MEASURE)],
    quiet: Annotated[_options.Quiet, fields(panel=MEASURE)] = False,
) -> int:
    """Measure a record's workload again and compare; or with --static check what cannot change.

    Exit status 0 if the record holds, 1 if something is SLOWER or a report differs, 2 if it cannot
    be checked.
    """
    from layerbench.cli.compare import say
    from layerbench.errors import UsageError

    if static:
        return _static(records or _usual_places())
    if not records or len(records) > 1:
        raise UsageError("name one record to measure again, or give --static")
    names = _options.checked_formats(formats, out)
    record, plan = _what_to_repeat(records[0], iterations, processes)
    comparison = _measured_again(records[0], record, plan, device, threshold, quiet)
    return say(comparison, names, out, view)


def _usual_places() -> list[Path]:
    """Those that are here.

    Raises:
        UsageError: none is.
    """
    from layerbench.errors import UsageError

    places = [path for path in map(Path, STATIC_PLACES) if path.is_dir()]
    if not places:
        raise UsageError(
            f"there is no folder {' or '.join(STATIC_PLACES)} here: name records, or folders of "
            "them"
        )
    return places


def _static(places: list[Path]) -> int:
    """Print the differences of each report, or that there are none."""
    from layerbench.api.verification import checked
    from layerbench.cli._progress import beside_report
    from layerbench.text import visible

    reports, wrong, not_compared = 0, 0, 0
    with beside_report("check", quiet=False) as progress:
        for one in checked(places, progress):
            reports += 1
            if one.complaint is not None:
                wrong += 1
                typer.echo(visible(f"{one.path}: {one.complaint}"))
            elif one.other_torch is not None:
                not_compared += 1
                said = f"made with torch {one.other_torch}: not compared"
                typer.echo(visible(f"{one.path}: {said}"))
    holding = f"{reports - wrong - not_compared} of {reports} reports say what comes out here"
    others = f"; {not_compared} of another torch not compared" if not_compared else ""
    typer.echo(f"{holding}{others}")
    return 1 if wrong else 0


def _what_to_repeat(
    path: Path, iterations: int | None, processes: int | None
) -> tuple[Profile, Plan]:
    from layerbench.errors import UsageError
    from layerbench.records.bundle import times_in
    from layerbench.store.reading import with_times

    record = times_in(with_times(path))
    assert record is not None  # which `with_times` makes sure of
    if record.workload.handed_over:
        raise UsageError(f"{path} was measured on a module object, which no file can bring back")
    # What stands beside the times is not compared.
    changed = {"iterations": iterations, "processes": processes, "isolate": False, "energy": False}
    update = {name: value for name, value in changed.items() if value is not None}
    return record, record.plan.model_copy(update=update)


def _measured_again(
    path: Path, record: Profile, plan: Plan, device: str | None, threshold: float, quiet: bool
) -> Comparison:
    from layerbench.analysis.comparison import compare
    from layerbench.api import timing
    from layerbench.cli._progress import shown
    from layerbench.environment import devices

    where = devices.get(device or record.environment.device.kind)
    with shown(record.workload.model, quiet) as progress:
        made = timing.measure(record.workload, plan, where, progress=progress)
    return compare(record, made.profile, names=(str(path), "now"), threshold=threshold)
