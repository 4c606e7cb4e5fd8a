"""``layerbench report``: records as one HTML file to open, send and keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _options
from layerbench.errors import UsageError
from layerbench.records.options import option
from layerbench.records.view import USUAL

if TYPE_CHECKING:
    from layerbench.records.kinds import Record

NAME = "report"


def command(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="X.json [Y.json]...",
            help="Records of one model and input. Two profiles are compared, the first is the "
            "baseline; a structure, a memory or a training record adds its columns.",
        ),
    ] = None,
    *,
    from_trace: Annotated[
        Path | None,
        option(
            "A trace that torch.profiler wrote, in place of records: its times by module.",
            metavar="TRACE.json[.gz]",
        ),
    ] = None,
    format: Annotated[
        str, option("html, or another format of export: txt, md, csv, json.", metavar="NAME")
    ] = "html",
    out: Annotated[
        Path | None,
        option("File to write.", "--out", "-o", metavar="FILE", default_text="X.html, here"),
    ] = None,
    threshold: _options.Threshold = _options.SAME,
) -> None:
    """Write one self-contained HTML file: tree, icicle, details, search and comparison.

    It opens from disk without a network, and loads nothing from anywhere. With --from-trace it is
    of a trace that torch.profiler wrote, with how much of its time belongs to a module.
    """
    from layerbench import reporters
    from layerbench.store import writing
    from layerbench.units import bytes_

    ending = reporters.suffix(format)
    record = _record(records or [], from_trace, threshold)
    if from_trace is not None:
        _options.show("screen", record, USUAL)
    text = reporters.render(format, record)
    place = out or Path(f"{_stem(from_trace or (records or [])[-1])}{ending}")
    read = [from_trace] if from_trace else records or []
    if any(one.exists() and place.exists() and place.samefile(one) for one in read):
        raise UsageError(f"{place} is what the report is of: name another file with --out")
    writing.write_text(place, text)
    typer.echo(f"{place} ({bytes_(len(text.encode()))})")


def _record(records: Sequence[Path], trace: Path | None, threshold: float) -> Record:
    """What is reported."""
    from layerbench.analysis.bundle import joined
    from layerbench.reporters.html.document import bundled
    from layerbench.store import reading

    if trace is not None:
        if records:
            raise UsageError(f"give either records or --from-trace {trace}")
        from layerbench.profilers.trace_profile import profile_trace

        return profile_trace(trace)
    if not records:
        raise UsageError("name a record, such as stats/*/layers/X.json, or a trace: --from-trace")
    contents = [(str(path), reading.read(path)) for path in records]
    alone = len(contents) == 1 and bundled(contents[0][1]) is None
    return contents[0][1] if alone else joined(contents, threshold)


def _stem(path: Path) -> str:
    """A file's name without its endings: ``X`` of ``X.pt.trace.json.gz``."""
    name = path.name.removesuffix(".gz").removesuffix(".json")
    return name.removesuffix(".trace").removesuffix(".pt") or "trace"
