"""``layerbench report``: records as one HTML file to open, send and keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.records.options import option

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
    *,
    out: Annotated[
        Path | None,
        option("File to write.", "--out", "-o", metavar="FILE", default_text="X.html, here"),
    ] = None,
    threshold: _options.Threshold = _options.SAME,
) -> None:
    """Write one self-contained HTML file: tree, icicle, details, search and comparison.

    It opens from disk without a network, and loads nothing from anywhere.
    """
    from layerbench import reporters
    from layerbench.analysis.bundle import joined
    from layerbench.reporters.html.document import bundled
    from layerbench.store import reading, writing
    from layerbench.units import bytes_

    contents = [(str(path), reading.read(path)) for path in records]
    alone = len(contents) == 1 and bundled(contents[0][1]) is None
    record = contents[0][1] if alone else joined(contents, threshold)
    text = reporters.render("html", record)
    place = out or Path(records[-1].with_suffix(".html").name)
    writing.write_text(place, text)
    typer.echo(f"{place} ({bytes_(len(text.encode()))})")
