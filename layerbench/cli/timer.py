"""``timer``: time a model, its blocks and its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _completion, _endings, _options, _output
from layerbench.cli._cluster import ClusterOptions
from layerbench.cli._generated import fields
from layerbench.cli._several import combinations
from layerbench.records.options import MEASURING, OUTCOME, Device, option
from layerbench.records.view import View
from layerbench.records.workload import Plan

if TYPE_CHECKING:
    from layerbench.api.timing import Measurement
    from layerbench.records.timing import Profile
    from layerbench.store.paths import Places

NAME = "timer"

# Options that each node of a cluster gets in words of its own.
ON_NODES = frozenset({"models", "model", "input", "keep_samples"})


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models, one after the other; instead of --model.",
            autocompletion=_completion.models,
        ),
    ] = None,
    *,
    what: Annotated[_options.WorkloadOptions, fields(several=("input",))],
    device: Device = None,
    on: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
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

    Several models, and several inputs after --input, are timed in each combination, with one table
    at the end. On a terminal it shows the first screen of the report: what to think of the times,
    the slowest layers and types, and why they are slow.
    """
    from layerbench import reporters
    from layerbench.cli._progress import measuring
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
        reporters.check(name, profile=True, layers=plan.granularity != "whole")
    if out is not None:
        writing.check_writable(out)

    asked = combinations(what, models or [])
    if on.check(device, out):
        _on_cluster(on, asked, names, out, keep_samples, view, quiet)
        return

    # After the cheap checks: this loads torch.
    from layerbench.api import timing
    from layerbench.environment import devices

    where = devices.get(device)

    def measured(one: _options.WorkloadOptions, title: str) -> Measurement:
        with measuring(title, quiet, device) as progress:
            return timing.measure(
                one.workload(),
                plan,
                where,
                ceilings=ceilings,
                strict=strict,
                progress=progress,
                # Of a strict run nothing is written that is not to be trusted.
                keep_interrupted=not strict,
            )

    def deliver(made: Measurement) -> None:
        _options.say_what_is_not_shown(made.profile, view)
        if out is None:
            for name in names:
                _options.show(name, made.profile, view)
        else:
            for path in write(made, out, names, keep_samples, view):
                typer.echo(str(path))

    if len(asked) > 1:
        table = _TABLES.get(names[0]) if out is None else "txt"
        status = _one_after_the_other(asked, measured, deliver, table)
        if status:
            raise typer.Exit(status)
        return
    made = measured(asked[0], asked[0].model)
    deliver(made)
    if made.profile.stop == "interrupted":
        _output.complain("interrupted: the report is of what was measured up to then")
        raise typer.Exit(_endings.INTERRUPTED)


def _on_cluster(
    on: ClusterOptions,
    asked: Sequence[_options.WorkloadOptions],
    names: list[str],
    out: Path | None,
    keep_samples: bool,
    view: View,
    quiet: bool,
) -> None:
    from layerbench.cli._cluster_each import Each, Measured, end, measure
    from layerbench.records.timing import Profile
    from layerbench.store import paths

    def words(renamed: Mapping[str, str]) -> dict[str, list[str]]:
        return {
            _title(one): [
                f"--model={renamed[one.model]}",
                *([] if one.input is None else [f"--input={one.input}"]),
                *(["--keep-samples"] if keep_samples else []),
            ]
            for one in asked
        }

    def deliver(measured: Measured[Profile]) -> list[Path]:
        profile = measured.record
        if out is None:
            for name in names:
                _options.show(name, profile, view)
            return []
        places = paths.places(profile, out)
        files = write_to(profile, places, names, view, lambda: measured.samples)
        for path in files:
            typer.echo(str(path))
        whole = (places.layers if profile.layers else places.whole).with_suffix(".json")
        return sorted(files, key=lambda path: path != whole)

    models = list(dict.fromkeys(one.model for one in asked))
    each = Each(NAME, ON_NODES, models, words, Profile, deliver, keep_samples)
    interrupted = measure(each, on, out, quiet=quiet)
    table = _TABLES.get(names[0]) if out is None else "txt"
    if len(each.measured) > 1 and table:
        _show_table([one.record for one in each.measured], table)
    end(each, interrupted)


def _title(one: _options.WorkloadOptions) -> str:
    return one.model if one.input is None else f"{one.model} on {one.input}"


# Formats of reports that a table may stand below, and the table's.
_TABLES = {"txt": "txt", "screen": "txt", "md": "md"}


def _one_after_the_other(
    asked: Sequence[_options.WorkloadOptions],
    measured: Callable[[_options.WorkloadOptions, str], Measurement],
    deliver: Callable[[Measurement], None],
    table: str | None,
) -> int:
    """Measure each, and at the end show one table of all, and say which failed.

    Args:
        asked: what to measure.
        measured: measures one; its progress goes by the name.
        deliver: prints or writes a report.
        table: the format of the table; ``None`` shows none.

    Returns:
        the status to leave with.
    """
    profiles: list[Profile] = []
    failures: list[tuple[str, BaseException]] = []
    stopped = False
    for number, one in enumerate(asked, 1):
        name = _title(one)
        try:
            made = measured(one, f"{number} of {len(asked)}: {name}")
        except KeyboardInterrupt:
            stopped = True
            break
        except (Exception, SystemExit) as error:
            # A model may raise anything, and the others are worth having.
            failures.append((name, error))
            continue
        deliver(made)
        profiles.append(made.profile)
        stopped = made.profile.stop == "interrupted"
        if stopped:
            break
    if profiles and table:
        _show_table(profiles, table)
    statuses = [_endings.failed(error, name) for name, error in failures]
    if stopped:
        left = len(asked) - len(profiles) - len(failures)
        _output.complain(f"interrupted: {left} of {len(asked)} were not measured")
        return _endings.INTERRUPTED
    return max(statuses, default=0)


def _show_table(profiles: Sequence[Profile], format: str) -> None:
    from layerbench.reporters.result_table import render_table

    typer.echo()
    _options.say(render_table(profiles, format=format) + "\n")


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
    from layerbench.analysis.aggregation import kept_samples
    from layerbench.store import paths, writing

    def samples() -> bytes | None:
        return writing.arrays_file(kept_samples(measured.runs)) if keep_samples else None

    record = measured.profile
    return write_to(record, paths.places(record, out), formats, view, samples)


def write_to(
    record: Profile,
    places: Places,
    formats: list[str],
    view: View,
    samples: Callable[[], bytes | None],
) -> list[Path]:
    """Write a profile's reports, and its samples where there are any; all or none.

    Returns:
        the files written.
    """
    from layerbench import reporters
    from layerbench.store import writing

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
    arrays = samples()
    if arrays is not None:
        files.append((documents[-1][0].with_suffix(".npz"), arrays))
    writing.write_all(files)
    return [path for path, _ in files]
