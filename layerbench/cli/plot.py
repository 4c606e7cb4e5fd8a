"""``layerbench plot``: a picture of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from layerbench.errors import at_least
from layerbench.records.bounds import Count
from layerbench.records.options import OUTCOME, option
from layerbench.records.tree import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from layerbench.records.kinds import Record
    from layerbench.records.structure import Structure
    from layerbench.records.timing import Profile

NAME = "plot"

Kind = Literal["icicle", "bars", "roofline", "memory", "graph"]
ROWS = (
    "a profile (layerbench timer), a training profile (layerbench train-profile), a structure "
    "(layerbench mem --struct), a memory record (layerbench mem) or a joined record (layerbench "
    "profile)"
)
# What each kind is drawn of, and the command that makes it.
NEEDS = {
    "icicle": ROWS,
    "bars": ROWS,
    "roofline": "a profile of layers (layerbench timer --ceilings)",
    "memory": "a memory report (layerbench mem) or estimate (layerbench mem --predict)",
    "graph": "a structure (layerbench mem --struct) or a joined record (layerbench profile)",
}
# Of each option that only some kinds have.
TAKES = {
    "metric": ("icicle", "bars", "graph"),
    "top": ("bars", "roofline"),
    "depth": ("icicle",),
    "module": ("graph",),
}
READ = "What is drawn"


def command(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORD...",
            help="Records to draw, one picture each; a roofline also takes their structures. Of a "
            "joined record the part is drawn that has the figures.",
        ),
    ],
    *,
    kind: Annotated[
        Kind,
        option(
            "icicle: the tree, each layer as wide as its part. bars: the rows that take the most. "
            "roofline: FLOPs a second over FLOPs a byte. memory: live bytes in a run. graph: one "
            "module's calls and the tensors between them.",
            panel=READ,
            metavar="NAME",
        ),
    ] = "icicle",
    metric: Annotated[
        Metric | None,
        option(
            "Figure that icicle, bars and graph show: time, self, flops, parameters or memory.",
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
    module: Annotated[
        str | None,
        option(
            "Module whose inside a graph shows, such as layer1.0.",
            panel=READ,
            metavar="PATH",
            default_text="the model",
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        option(
            "Where to write it, .png or .svg; several times for both.",
            "--out",
            "-o",
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
    """Draw a record: layers as an icicle, bars, a roofline or a graph, or memory over a run."""
    from layerbench import plots
    from layerbench.records.structure import Structure
    from layerbench.store import reading, writing

    options = {"metric": metric, "top": top, "depth": depth, "module": module}
    _check_options(kind, options)
    read = [(path, reading.read(path)) for path in records]
    structures = [record for _, record in read if isinstance(record, Structure)]
    if kind != "graph":
        read = [(path, _part(record, kind, metric)) for path, record in read]
    drawn = read if kind != "roofline" else _without_structures(read)
    places = [_places(path, kind, out, formats, len(drawn)) for path, _ in drawn]
    _check_apart([place for files in places for place in files])
    for (path, record), files in zip(drawn, places, strict=True):
        if kind == "roofline":
            figure = _roofline(path, record, structures, top)
        elif kind == "graph":
            figure = _graph(path, record, module or "", metric)
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


# Of a joined record the parts that have a metric, the first of them that it holds.
_PARTS: dict[Metric | None, tuple[str, ...]] = {
    None: ("profile", "structure", "memory", "training"),
    "time": ("profile", "training"),
    "self": ("profile", "training"),
    "flops": ("structure",),
    "parameters": ("structure",),
    "memory": ("memory",),
}


def _part(record: Record, kind: str, metric: Metric | None) -> Record:
    """Of a joined record the one that is drawn; any other, and where there is none, itself."""
    from layerbench.records.bundle import Bundle

    if not isinstance(record, Bundle):
        return record
    held = record.parts()
    # A part without the metric says which record has it.
    drawn = (*_PARTS[metric], *_PARTS[None])
    wanted = {"roofline": ("profile",), "memory": ("memory",)}.get(kind, drawn)
    return next((held[name] for name in wanted if name in held), record)


def _figure(
    path: Path, record: Record, kind: str, metric: Metric | None, top: int | None, depth: int | None
) -> Figure:
    from layerbench import plots
    from layerbench.plots.canvas import Drawn
    from layerbench.records.memory import MemoryEstimate, MemoryReport

    if kind == "memory":
        if not isinstance(record, MemoryReport | MemoryEstimate):
            raise _wrong(path, record, kind)
        return plots.memory(record)
    if not isinstance(record, Drawn):
        raise _wrong(path, record, kind)
    if kind == "icicle":
        return plots.icicle(record, metric, depth)
    return plots.bars(record, metric, **({} if top is None else {"top": top}))


def _graph(path: Path, record: Record, module: str, metric: Metric | None) -> Figure:
    from layerbench import plots
    from layerbench.plots.canvas import Drawn
    from layerbench.records.bundle import Bundle
    from layerbench.records.structure import Structure

    structure = record.structure if isinstance(record, Bundle) else record
    coloured = _part(record, "graph", metric)
    if not isinstance(structure, Structure) or not isinstance(coloured, Drawn):
        raise _wrong(path, record, "graph")
    return plots.graph(structure, module, coloured, metric)


def _roofline(
    path: Path, profile: Record, structures: Sequence[Structure], top: int | None
) -> Figure:
    from layerbench import plots
    from layerbench.records.timing import Profile

    if not isinstance(profile, Profile):
        raise _wrong(path, profile, "roofline")
    structure = _structure_for(path, profile, structures)
    return plots.roofline(profile, structure, **({} if top is None else {"top": top}))


def _without_structures(read: list[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """What a roofline is drawn of.

    Raises:
        UsageError: nothing.
    """
    from layerbench.records.structure import Structure

    others = [(path, record) for path, record in read if not isinstance(record, Structure)]
    if not others:
        raise _wrong(*read[0], "roofline")
    return others


def _structure_for(
    path: Path, profile: Profile, structures: Sequence[Structure]
) -> Structure | None:
    """The profile's structure among these records, or else computed now.

    None, where none is among them and the profile itself has what it would say.

    Raises:
        UsageError: no layers were timed, or the model cannot be built here.
        ComparisonError: they are of other work.
    """
    from layerbench.analysis.roofline import check_same_work, has_flops
    from layerbench.errors import ComparisonError, UsageError

    if not profile.layers:
        raise UsageError(f"{path} holds no layers, the whole model only: take layers/{path.name}")
    refused: ComparisonError | None = None
    for structure in structures:
        try:
            check_same_work(profile.workload, structure.workload)
        except ComparisonError as error:
            refused = error
            continue
        return structure
    if refused is not None:
        raise refused
    return None if has_flops(profile) else _dissected(profile)


def _dissected(profile: Profile) -> Structure:
    from layerbench.errors import LayerbenchError, UsageError

    workload = profile.workload
    advice = "add its structure record, as layerbench mem --struct or layerbench.structure makes it"
    if workload.handed_over:
        raise UsageError(f"{workload.model} was handed over and cannot be built here: {advice}")
    from layerbench import zoo  # loads torch
    from layerbench.profilers.structure import profile_structure

    try:
        zoo.has_weights(workload.model)  # says which names are close to one that is not there
        return profile_structure(workload)
    except LayerbenchError as error:
        raise UsageError(f"{workload.model} cannot be built here ({error}): {advice}") from error


def _wrong(path: Path, record: Record, kind: str) -> Exception:
    from layerbench.errors import UsageError

    return UsageError(f"{path} holds a {record.record} record: --kind {kind} needs {NEEDS[kind]}")
