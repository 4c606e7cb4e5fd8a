"""``layerbench table``: the result table of committed records, also kept in a README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.records.options import option

if TYPE_CHECKING:
    from layerbench.records.workload import Frozen

NAME = "table"


def table(
    paths: Annotated[list[Path] | None, typer.Argument(help="Records, or folders of them.")] = None,
    *,
    sort: Annotated[
        str | None, option("device (default), model, input, mean, median or parameters.")
    ] = None,
    format: Annotated[str | None, option("md (default), txt, csv, html or latex.")] = None,
    side_by_side: Annotated[
        bool,
        option("A row for each model and input, a column for each device and number of threads."),
    ] = False,
    columns: Annotated[
        list[str] | None,
        option(
            "Columns, with commas: model, input, device, threads, mean, std, fps, median, "
            "interval, params, verdict, allocated, tensors, peak, flops, seed, processes, "
            "iterations, warmup, torch, layerbench, folder, started.",
            metavar="LIST",
            default_text="the usual ones, and those that tell rows apart",
        ),
    ] = None,
    caption: Annotated[str | None, option("Text above the table.")] = None,
    label: Annotated[
        str | None, option("Label of a LaTeX table.", default_text="tab:layerbench")
    ] = None,
    readme: Annotated[
        Path | None, option("Rewrite the tables between the markers of this file.")
    ] = None,
    check: Annotated[
        bool, option("With --readme: change nothing, fail if it is out of date.")
    ] = False,
) -> None:
    """Make one table out of many whole-model records, also of several devices.

    Memory reports and structures among them add their columns to the profiles of the same work.
    A joined record, as `layerbench profile` writes it, is a row with all of them.
    """
    from layerbench.errors import UsageError
    from layerbench.reporters.result_table import SORTS, render_table

    if readme is not None:
        if paths or sort or format or side_by_side or columns or caption or label:
            raise UsageError(
                f"the markers in {readme} say which records to read and how to show them: "
                "leave out all options but --check"
            )
        _renew(readme, check)
        return
    if check or not paths:
        raise UsageError("name the records to make a table of, or a document with --readme FILE")
    shown = render_table(
        whole_records(paths),
        sort or SORTS[0],
        format=format or "md",
        side_by_side=side_by_side,
        columns=columns,
        caption=caption,
        label=label,
    )
    typer.echo(shown)


command = table


def whole_records(paths: Sequence[Path]) -> list[Frozen]:
    """The records to show: those under a folder ``layers`` repeat the whole, and are left out.

    So are those of a measurement that was interrupted. A record or a ``layers`` folder named as
    such is taken.
    """
    from layerbench.store.reading import read_all

    named = set(paths)
    return [
        record
        for path, record in read_all(paths)
        if path in named
        or (path.parent.name == "layers" and path.parent in named)
        or (path.parent.name != "layers" and not _interrupted(record))
    ]


def _interrupted(record: Frozen) -> bool:
    from layerbench.records.bundle import times_in

    times = times_in(record)
    return times is not None and times.stop == "interrupted"


def _renew(document: Path, check: bool) -> None:
    """Write the tables of a document anew, or only say whether they are up to date."""
    from layerbench.errors import UsageError
    from layerbench.reporters.result_table import update_markers
    from layerbench.store.writing import write_text

    try:
        old = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {document}: {error}") from None
    # Paths in a marker start from the document, so that it does not matter where this runs.
    new = update_markers(
        old, lambda names: whole_records([document.parent / name for name in names])
    )
    if new == old:
        return
    if check:
        typer.echo(
            f"{document} disagrees with its records: run layerbench table --readme {document}",
            err=True,
        )
        raise typer.Exit(1)
    write_text(document, new)
