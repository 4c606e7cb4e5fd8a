"""The options of other packages' sections in a report: which of them, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from layerbench.errors import UsageError
from layerbench.records.options import option
from layerbench.records.peers import COLUMNS, PEERS, USUAL_COLUMNS, Column, Peer

Report = Literal["structure", "memory", "prediction"]

PANEL = "Other packages beside ours"
# The package that has a section in a report.
_OF_REPORT: dict[Report, Peer | None] = {
    "structure": "torchinfo",
    "memory": "memlab",
    "prediction": None,
}

With = Annotated[
    list[str] | None,
    option(
        "memlab (in memory reports), torchinfo (with --struct); several with commas.",
        "--with",
        panel=PANEL,
        metavar="LIST",
        default_text="memlab,torchinfo",
    ),
]
Without = Annotated[
    list[str] | None,
    option("Those of them that are left out.", "--without", panel=PANEL, metavar="LIST"),
]
Columns = Annotated[
    list[str] | None,
    option(
        f"Columns of torchinfo's table: {', '.join(COLUMNS)}.",
        "--columns",
        panel=PANEL,
        metavar="LIST",
        default_text=",".join(USUAL_COLUMNS),
    ),
]
Lines = Annotated[
    list[str] | None,
    option(
        "memlab's line profile of functions, on a GPU: package.module:callable, "
        "path/to/file.py:callable, or a path in the model for that module's forward.",
        "--lines",
        panel=PANEL,
        metavar="LIST",
    ),
]


@dataclass(frozen=True)
class Beside:
    """What stands beside our own report.

    Attributes:
        memlab: whether its account does.
        lines: functions that it profiles.
        columns: of torchinfo's table; none where it is left out.
    """

    memlab: bool
    lines: tuple[str, ...]
    columns: tuple[Column, ...]


def beside(
    report: Report,
    chosen: Sequence[str] | None,
    without: Sequence[str] | None,
    columns: Sequence[str] | None,
    lines: Sequence[str] | None,
) -> Beside:
    """What stands beside a report, as the options say it.

    Raises:
        UsageError: there is no such package or column, or it has no place in this report.
    """
    _check_names("--with", chosen or (), PEERS)
    _check_names("--without", without or (), PEERS)
    _check_names("--columns", columns or (), COLUMNS)
    own = _OF_REPORT[report]
    if chosen and own not in chosen:
        raise UsageError(_has_no_place(report, chosen[0]))
    shown = own is not None and own in (chosen or PEERS) and own not in (without or ())
    if columns and not (shown and own == "torchinfo"):
        raise UsageError("--columns are those of torchinfo's table: add --struct")
    if lines and not (shown and own == "memlab"):
        raise UsageError("--lines is memlab's, which reads a measured run: leave the others out")
    return Beside(
        memlab=shown and own == "memlab",
        lines=tuple(lines or ()),
        columns=_columns(columns) if shown and own == "torchinfo" else (),
    )


def check_no_lines(chosen: Beside) -> None:
    """Refuse a line profile where memory is predicted, for a device that is not here.

    Raises:
        UsageError: one was asked for.
    """
    if chosen.lines:
        raise UsageError("--lines needs a GPU, and this machine has none")


def _columns(names: Sequence[str] | None) -> tuple[Column, ...]:
    return cast("tuple[Column, ...]", tuple(dict.fromkeys(names))) if names else USUAL_COLUMNS


def _check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{option} takes {', '.join(known)}, got {name!r}")


def _has_no_place(report: Report, name: str) -> str:
    hint = {
        "structure": "torchinfo has a section beside a structure",
        "memory": "memlab has one beside memory; for torchinfo add --struct",
        "prediction": "a prediction has no section of another package",
    }[report]
    return f"--with {name}: {hint}"
