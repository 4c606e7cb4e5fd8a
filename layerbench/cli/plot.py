"""``layerbench plot``: a picture of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeGuard

import typer

from layerbench.errors import at_least
from layerbench.records.bounds import Count
from layerbench.records.options import OUTCOME, option
from layerbench.records.tree import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from layerbench.plots.canvas import Drawn
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.timing import Profile
    from layerbench.records.workload import Frozen

NAME = "plot"

Kind = Literal["icicle", "bars", "roofline", "memory"]
ROWS = (
    "a profile (timer.py), a training profile (layerbench train-profile), a structure "
    "(mem.py --struct) or a memory record (mem.py)"
)
# What each kind is drawn of, and the command that makes it.
NEEDS = {
    "icicle": ROWS,
    "bars": ROWS,
    "roofline": "a profile of layers (timer.py --ceilings)",
    "memory": "a memory report (mem.py) or estimate (mem.py --predict)",
}
# Of each option that only some kinds have.
TAKES = {
    "metric": ("icicle", "bars"),
    "top": ("bars", "roofline"),
    "depth": ("icicle",),
}
READ = "What is drawn"


def command(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORD...",
            help="Records to draw, one picture each; a roofline also takes their structures.",
        ),
    ],
    *,
    kind: Annotated[
        Kind,
        option(
            "icicle: the tree, each layer as wide as its part. bars: the rows that take the most. "
            "roofline: FLOPs a second over FLOPs a byte. memory: live bytes in a run.",
            panel=READ,
            metavar="NAME",
        ),
    ] = "icicle",
    metric: Annotated[
        Metric | None,
        option(
            "Figure that icicle and bars show: time, self, flops, parameters or memory.",
            panel=READ,
            metavar="NAME",
            default_text="time or self, or what the record has",
        ),
    ] = None,
    top: Annotated[
        Count | None,
        option(
            "Number of rows of bars, or of layers that a roofline names.",
            panel=READ,
            default_text="20, and 8",
        ),
    ] = None,
    depth: Annotated[
        Count | None,
        option("Levels that an icicle shows below the model.", panel=READ, default_text="all"),
    ] = None,
    out: Annotated[
        list[Path] | None,
        option(
            "Where to write it, .png or .svg; several times for both.",
            *("--out", "-o"),
            panel=OUTCOME,
            metavar="FILE",
            default_text="<record>.<kind>.png in this folder",
        ),
    ] = None,
    formats: Annotated[
        list[Literal["png", "svg"]] | None,
        option(
            "png, svg, or both with a comma; instead of -o.",
            "--format",
            panel=OUTCOME,
            metavar="LIST",
            default_text="png",
        ),
    ] = None,
) -> None:
    """Draw a record: layers as an icicle, bars or a roofline, or memory over a run; PNG or SVG."""
    from layerbench import plots
    from layerbench.store import reading, writing

    options = {"metric": metric, "top": top, "depth": depth}
    _check_options(kind, options)
    read = [(path, reading.read(path)) for path in records]
    if kind == "roofline":
        drawn = _profiles(read)
        structures = [(path, record) for path, record in read if _is_structure(record)]
    else:
        drawn, structures = read, []
    places = [_places(path, kind, out, formats, len(drawn)) for path, _ in drawn]
    _check_apart([place for files in places for place in files])
    for (path, record), files in zip(drawn, places, strict=True):
        if kind == "roofline":
            figure = _roofline(path, record, structures, top)
        else:
            figure = _figure(path, record, kind, metric, top, depth)
        for place in files:
            writing.write_bytes(place, plots.encoded(figure, place.suffix[1:].lower()))
            typer.echo(str(place))


def _check_options(kind: str, options: Mapping[str, str | int | None]) -> None:
    from layerbench.errors import UsageError

    for name, value in options.items():
        if value is None:
            continue
        if kind not in TAKES[name]:
            raise UsageError(f"--{name} is for {' and '.join(TAKES[name])}, not for {kind}")
        if isinstance(value, int):
            at_least(f"--{name}", value, 0 if kind == "roofline" else 1)


# --- where it goes ---------------------------------------------------------------------------


def _places(
    path: Path, kind: str, out: list[Path] | None, formats: Sequence[str] | None, pictures: int
) -> list[Path]:
    """The files that one record's picture is written to."""
    from layerbench.errors import UsageError
    from layerbench.plots import ENDINGS

    if out and formats is not None:
        raise UsageError("the ending of -o says the format: leave out --format")
    if out and pictures > 1:
        raise UsageError(f"-o is for one picture, and these are {pictures}: leave it out")
    if out:
        for place in out:
            if place.suffix[1:].lower() not in ENDINGS:
                raise UsageError(f"-o takes a file ending in .png or .svg, got {place}")
        return list(dict.fromkeys(out))
    names = ENDINGS[:1] if formats is None else formats
    return [Path(f"{path.stem}.{kind}.{name}") for name in dict.fromkeys(names)]


def _check_apart(places: list[Path]) -> None:
    from layerbench.errors import UsageError

    for place in places:
        if places.count(place) > 1:
            raise UsageError(
                f"two of the records would be drawn to {place}: draw one after the other, with -o"
            )


# --- what is drawn ---------------------------------------------------------------------------


def _figure(
    path: Path, record: Frozen, kind: str, metric: Metric | None, top: int | None, depth: int | None
) -> Figure:
    from layerbench import plots

    if kind == "memory":
        if not _is_memory(record):
            raise _wrong(path, record, kind)
        return plots.memory(record)
    if not _has_rows(record):
        raise _wrong(path, record, kind)
    if kind == "icicle":
        return plots.icicle(record, metric, depth)
    return plots.bars(record, metric, **({} if top is None else {"top": top}))


def _roofline(
    path: Path,
    profile: Frozen,
    structures: Sequence[tuple[Path, Frozen]],
    top: int | None,
) -> Figure:
    from layerbench import plots

    if not _is_profile(profile):
        raise _wrong(path, profile, "roofline")
    structure = _structure_for(path, profile, structures)
    return plots.roofline(profile, structure, **({} if top is None else {"top": top}))


def _profiles(read: Sequence[tuple[Path, Frozen]]) -> list[tuple[Path, Frozen]]:
    """What of the records a roofline is drawn of: all but the structures.

    Raises:
        UsageError: nothing.
    """
    profiles = [(path, record) for path, record in read if not _is_structure(record)]
    if not profiles:
        raise _wrong(*read[0], "roofline")
    return profiles


def _structure_for(
    path: Path, profile: Profile, structures: Sequence[tuple[Path, Frozen]]
) -> Structure:
    """The structure of the profile's work among these, else worked out anew.

    Raises:
        UsageError: no layers were timed, or the model cannot be built here.
        ComparisonError: they are of other work.
    """
    from layerbench.analysis.roofline import check_same_work
    from layerbench.errors import ComparisonError, UsageError

    if not profile.layers:
        raise UsageError(f"{path} holds no layers, the whole model only: take layers/{path.name}")
    refused: ComparisonError | None = None
    for _, structure in structures:
        assert _is_structure(structure)
        try:
            check_same_work(profile.workload, structure.workload)
        except ComparisonError as error:
            refused = error
            continue
        return structure
    if refused is not None:
        raise refused
    return _dissected(profile)


def _dissected(profile: Profile) -> Structure:
    from layerbench.errors import LayerbenchError, UsageError
    from layerbench.records.workload import OWN_WEIGHTS

    workload = profile.workload
    advice = "add its structure record, as mem.py --struct or layerbench.structure makes it"
    # A spec names a module and a callable with a colon between them; a class name has none.
    if workload.weights == OWN_WEIGHTS and ":" not in workload.model:
        raise UsageError(f"{workload.model} was handed over and cannot be built here: {advice}")
    from layerbench import zoo  # loads torch
    from layerbench.profilers.structure import profile_structure

    try:
        zoo.has_weights(workload.model)  # says which names are close to one that is not there
        return profile_structure(workload)
    except LayerbenchError as error:
        raise UsageError(f"{workload.model} cannot be built here ({error}): {advice}") from error


def _wrong(path: Path, record: Frozen, kind: str) -> Exception:
    from layerbench.errors import UsageError

    holds = getattr(record, "record", type(record).__name__)
    return UsageError(f"{path} holds a {holds} record: --kind {kind} needs {NEEDS[kind]}")


def _is_profile(record: Frozen) -> TypeGuard[Profile]:
    return getattr(record, "record", "") == "profile"


def _is_structure(record: Frozen) -> TypeGuard[Structure]:
    return getattr(record, "record", "") == "structure"


def _is_memory(record: Frozen) -> TypeGuard[MemoryReport | MemoryEstimate]:
    return getattr(record, "record", "") in ("memory", "memory estimate")


def _has_rows(record: Frozen) -> TypeGuard[Drawn]:
    from layerbench.plots.quantities import HAS

    return getattr(record, "record", "") in HAS
