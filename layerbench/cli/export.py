"""``layerbench export``: a record in a format for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from layerbench.cli import _options
from layerbench.records.options import option
from layerbench.records.view import View

NAME = "export"

BY_ROW = ("md", "html", "latex")


def command(
    record: Annotated[Path, typer.Argument(help="A record, such as stats/*/layers/X.json.")],
    *,
    format: Annotated[
        str,
        option(
            "csv, md, html, latex, txt, json; screen for the first screen of txt, sentences for "
            "one for each row; trace for Perfetto and chrome://tracing; speedscope "
            "for www.speedscope.app.",
            metavar="NAME",
        ),
    ] = "csv",
    rows: Annotated[
        Literal["layers", "blocks"], option("Rows of md, html and latex: layers or blocks.")
    ] = "layers",
    out: Annotated[
        Path | None,
        option("Where to write it; without it to the terminal.", "--out", "-o", metavar="FILE"),
    ] = None,
    view: View,
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
    content = reporters.content(format, reading.read(record))
    if isinstance(content, Profile) and rows == "layers" and format in BY_ROW:
        content, view = finest(content), view.model_copy(update={"folded": False})
    _options.say_what_is_not_shown(content, view)
    if out is None:
        _options.show(format, content, view)
        return
    text = reporters.render(format, content, view)
    writing.write_text(out, text)
    typer.echo(str(out))
