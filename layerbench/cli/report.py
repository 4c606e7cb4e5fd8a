"""``layerbench report``: records as one HTML file to open, send and keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "report"


def command(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="X.json [Y.json]...",
            help="Records of one model and input. Two profiles are compared, the first is the "
            "baseline; a structure, a memory or a training record adds its columns.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="File to write.", show_default="X.html, here"
        ),
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="Smaller changes between two profiles are the same.")
    ] = "5%",
) -> None:
    """Write one self-contained HTML file: tree, icicle, details, search and comparison.

    It opens from disk without a network, and loads nothing from anywhere.
    """
    from layerbench import reporters
    from layerbench.analysis.bundle import joined
    from layerbench.reporters.html.document import bundled
    from layerbench.store import reading, writing
    from layerbench.units import bytes_, parse_percent

    share = parse_percent(threshold)
    found = [(str(path), reading.read(path)) for path in records]
    alone = len(found) == 1 and bundled(found[0][1]) is None
    record = found[0][1] if alone else joined(found, share)
    text = reporters.render("html", record)
    place = out or Path(records[-1].with_suffix(".html").name)
    writing.write_text(place, text)
    typer.echo(f"{place} ({bytes_(len(text.encode()))})")
