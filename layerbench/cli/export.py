"""``layerbench export``: a record in a format for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options

NAME = "export"

BY_ROW = ("md", "html", "latex")


def command(
    record: Annotated[Path, typer.Argument(help="A record, such as stats/*/layers/X.json.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="csv, md, html, latex, txt, json; trace for Perfetto and chrome://tracing; "
            "speedscope for www.speedscope.app.",
        ),
    ] = "csv",
    rows: Annotated[
        str,
        typer.Option(
            "--rows",
            help="Rows of md, html and latex: layers or blocks.",
        ),
    ] = "layers",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where to write it; without it to the terminal."
        ),
    ] = None,
) -> None:
    """Write a record for spreadsheets, papers and trace viewers.

    A csv row for each module repeats the environment. trace and speedscope show one representative
    forward, in which every layer takes its mean time.
    """
    from layerbench import reporters
    from layerbench.analysis.views import finest
    from layerbench.records.timing import Profile
    from layerbench.store import reading, writing

    reporters.suffix(format)
    chosen = _options.one_of("--rows", rows, ("layers", "blocks"))
    content = reading.read(record)
    if isinstance(content, Profile) and chosen == "layers" and format in BY_ROW:
        content = finest(content)
    text = reporters.render(format, content)
    if out is None:
        _options.say(text)
        return
    writing.write_text(out, text)
    typer.echo(str(out))
