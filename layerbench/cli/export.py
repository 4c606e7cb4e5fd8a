"""``layerbench export``: a record in a format for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "export"


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
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where to write it; without it to the terminal."
        ),
    ] = None,
) -> None:
    """Write a record for spreadsheets, papers and trace viewers.

    A csv row for each layer repeats the environment. trace and speedscope show one representative
    forward, in which every layer takes its mean time.
    """
    from layerbench import reporters, store

    reporters.suffix(format)
    text = reporters.render(format, store.read_record(record))
    if out is None:
        typer.echo(text, nl=False)
        return
    store.write_text(out, text)
    typer.echo(str(out))
