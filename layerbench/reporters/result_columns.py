"""The columns of the result table: what each says for people, in LaTeX, and as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from layerbench import units
from layerbench.errors import UsageError
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.workload import Frozen
from layerbench.reporters import formatting

Value = str | int | float | None


@dataclass(frozen=True)
class Entry:
    """A profile, and what other records say of the same work.

    Attributes:
        memory, structure: ``None`` where there is none among the records.
    """

    profile: Profile
    memory: MemoryReport | None = None
    structure: Structure | None = None

    @property
    def flops(self) -> int | None:
        """Of one forward: the structure's, else those that the profile itself counted."""
        top = self.profile.root
        return self.structure.flops if self.structure else top.flops if top else None


@dataclass(frozen=True)
class Cell:
    """What a row has in a column.

    Attributes:
        text: for people.
        data: for programs, by the name of the column: SI units, ``None`` if unknown.
        uncertain: the figure with its uncertainty, for a paper; empty where ``text`` is that too.
        span: the least and the most that the figure may be, where less is better; ``None`` for
            what is neither better nor worse.
    """

    text: str
    data: Mapping[str, Value]
    uncertain: str = ""
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: its name in the table.
        cell: what a row has in it.
        tells: whether it says which measurement a row is of, and so tells rows apart.
        right: whether cells are aligned at their right ends.
        measured: whether it is a time, which stays in the table though it be the same in all rows.
    """

    heading: str
    cell: Callable[[Entry], Cell]
    tells: bool = False
    right: bool = field(default=True, kw_only=True)
    measured: bool = field(default=False, kw_only=True)


def work_input(record: Profile) -> str:
    """The input's name and shape; once if the name is the shape."""
    shape, name = units.by_x(record.workload.shape), record.workload.input
    return shape if name == shape else f"{name} ({shape})"


def median_cell(record: Profile) -> Cell:
    """The median of the whole forward in ms."""
    whole = record.whole
    return Cell(
        formatting.ms(whole, "median"),
        {"median_s": whole.median},
        units.uncertain(whole.median, formatting.half_width(whole)),
        (whole.ci_low, whole.ci_high),
    )


def _model(entry: Entry) -> Cell:
    workload = entry.profile.workload
    variant = ", ".join(formatting.variant(workload))
    return Cell(
        formatting.model_name(workload), {"model": workload.model, "variant": variant or None}
    )


def _input(entry: Entry) -> Cell:
    workload = entry.profile.workload
    shape = units.by_x(workload.shape)
    return Cell(work_input(entry.profile), {"input": workload.input, "shape": shape})


def _mean(entry: Entry) -> Cell:
    whole = entry.profile.whole
    return Cell(
        formatting.ms(whole, "mean"), {"mean_s": whole.mean}, span=(whole.ci_low, whole.ci_high)
    )


def _std(entry: Entry) -> Cell:
    whole = entry.profile.whole
    return Cell(formatting.ms(whole, "std"), {"std_s": whole.std})


def _fps(entry: Entry) -> Cell:
    record = entry.profile
    mean = record.whole.mean
    value = record.workload.batch / mean if mean else None
    span = (record.whole.ci_low, record.whole.ci_high)
    return Cell(formatting.fps(record), {"fps": value}, span=span if mean else None)


def _interval(entry: Entry) -> Cell:
    whole = entry.profile.whole
    low, high = (formatting.ms(whole, end) for end in ("ci_low", "ci_high"))
    return Cell(f"[{low}, {high}]", {"ci_low_s": whole.ci_low, "ci_high_s": whole.ci_high})


def _params(entry: Entry) -> Cell:
    number = entry.profile.parameters
    return Cell(units.count(number), {"parameters": number}, span=(number, number))


def _allocated(entry: Entry) -> Cell:
    size = entry.memory.total.block_bytes if entry.memory else None
    return _size("allocated_bytes", size)


def _tensors(entry: Entry) -> Cell:
    number = entry.memory.total.elements if entry.memory else None
    text = "-" if number is None else f"{number / 1e6:.2f}"
    return Cell(text, {"tensor_elements": number})


def _peak(entry: Entry) -> Cell:
    return _size("peak_bytes", entry.memory.peak.bytes if entry.memory else None)


def _flops(entry: Entry) -> Cell:
    flops = entry.flops
    text = "-" if flops is None else f"{flops / 1e9:.2f}"
    return Cell(text, {"flops": flops}, span=None if flops is None else (flops, flops))


def _size(name: str, size: int | None) -> Cell:
    text = formatting.mebibytes(size)
    return Cell(text, {name: size}, span=None if size is None else (size, size))


def _word(name: str, value: str | int | None) -> Cell:
    return Cell(formatting.dash(value, str), {name: value})


COLUMNS: dict[str, Column] = {
    "model": Column("Model", _model, True, right=False),
    "input": Column("Input", _input, True, right=False),
    "device": Column(
        "Device", lambda e: _word("device", e.profile.environment.device.name), True, right=False
    ),
    "threads": Column("Threads", lambda e: _word("threads", formatting.threads(e.profile)), True),
    "mean": Column("Mean ms", _mean, measured=True),
    "std": Column("Std ms", _std, measured=True),
    "fps": Column("FPS", _fps, measured=True),
    "median": Column("Median ms", lambda e: median_cell(e.profile), measured=True),
    "interval": Column("95 % interval", _interval, measured=True),
    "params": Column("Parameters", _params),
    "verdict": Column("Verdict", lambda e: _word("verdict", e.profile.whole.verdict), right=False),
    "allocated": Column("Allocated MiB", _allocated),
    "tensors": Column("Tensors M", _tensors),
    "peak": Column("Peak MiB", _peak),
    "flops": Column("GFLOPs", _flops),
    "seed": Column("Seed", lambda e: _word("seed", e.profile.workload.seed), True),
    "processes": Column("Processes", lambda e: _word("processes", e.profile.plan.processes), True),
    "iterations": Column(
        "Iterations", lambda e: _word("iterations", e.profile.plan.iterations), True
    ),
    "warmup": Column("Warm-up", lambda e: _word("warmup", e.profile.plan.warmup), True),
    "torch": Column(
        "PyTorch",
        lambda e: _word("torch", e.profile.environment.software.packages.get("torch")),
        True,
        right=False,
    ),
    "layerbench": Column(
        "layerbench",
        lambda e: _word("layerbench", e.profile.environment.software.layerbench),
        True,
        right=False,
    ),
    "folder": Column(
        "Device's folder",
        lambda e: _word("folder", e.profile.environment.device.slug),
        True,
        right=False,
    ),
    "started": Column(
        "Started", lambda e: _word("started", e.profile.environment.started), True, right=False
    ),
}
"""By their words for ``--columns``, in the order in which they tell rows apart."""

USUAL = (
    *("model", "input", "device", "threads", "mean", "std", "fps", "median", "interval"),
    *("params", "verdict"),
)
PAPER = ("model", "input", "device", "threads", "params", "flops", "peak", "median", "fps")
OF_MEMORY = ("allocated", "tensors", "peak")


def entries(records: Sequence[Frozen]) -> list[Entry]:
    """The profiles among the records with the memory and the structure of the same work.

    A measurement that stands there twice, as the whole and as its layers, is one. What a bundle
    holds belongs together; its memory and structure are also those of other profiles of the work.
    """
    records = [part for record in records for part in _parts(record)]
    memory = {
        record.workload: record
        for record in records
        if isinstance(record, MemoryReport) and not record.training
    }
    structures = {record.workload: record for record in records if isinstance(record, Structure)}
    profiles: list[Profile] = []
    for record in records:
        if isinstance(record, Profile) and not any(_is_same(record, one) for one in profiles):
            profiles.append(record)
    return [
        Entry(record, memory.get(record.workload), structures.get(record.workload))
        for record in profiles
    ]


def _parts(record: Frozen) -> list[Frozen]:
    """Of a bundle what it holds, without the profile that it was compared with; else the record."""
    if not isinstance(record, Bundle):
        return [record]
    held = (record.profile, record.structure, record.memory)
    return [part for part in held if part is not None]


def _is_same(one: Profile, other: Profile) -> bool:
    """Whether two records are of one measurement."""
    names = ("workload", "whole", "plan", "environment")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def usual(rows: Sequence[Entry], paper: bool) -> list[str]:
    """The columns where nobody asked for others: those that some row has something for."""
    known = [
        *(OF_MEMORY if any(row.memory for row in rows) else ()),
        *(["flops"] if any(row.flops is not None for row in rows) else []),
    ]
    if not paper:
        return [*USUAL, *known]
    return [name for name in PAPER if name in (*USUAL, *known)]


def chosen(rows: Sequence[Entry], asked: Sequence[str] | None, paper: bool) -> list[str]:
    """The columns to show, so that no two rows look like one measurement.

    Args:
        rows: of the table.
        asked: the columns, or ``None`` for the usual ones, with those that tell rows apart.
        paper: whether the usual ones are those of a paper.

    Raises:
        UsageError: no such column, or rows that differ only in what is not shown.
    """
    if asked is not None:
        check_names(asked)
    names = list(dict.fromkeys(asked)) if asked is not None else usual(rows, paper)
    added: list[str] = []
    while alike := _alike(rows, [*names, *added]):
        more = next((name for name in COLUMNS if _differs(alike, name)), None)
        if more is None:
            record = alike[0].profile
            raise UsageError(
                f"{len(alike)} profiles of {formatting.model_name(record.workload)} on "
                f"{work_input(record)} began at {record.environment.started} and differ in "
                "figures alone: name one of them"
            )
        added.append(more)
    if added and asked is not None:
        raise UsageError(
            f"rows would differ only in what is not shown: add {','.join(added)} to --columns"
        )
    return [*names, *added]


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that no column has.

    Raises:
        UsageError: it is unknown, or there is no name at all.
    """
    unknown = next((name for name in names if name not in COLUMNS), None)
    if unknown is not None or not names:
        said = "no column" if unknown is None else f"no column {unknown!r}"
        raise UsageError(f"{said}: --columns takes {', '.join(COLUMNS)}")


def _alike(rows: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """The first rows that look like one measurement."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for row in rows:
        shown = tuple(COLUMNS[name].cell(row).text for name in names if COLUMNS[name].tells)
        groups.setdefault(shown, []).append(row)
    return next((group for group in groups.values() if len(group) > 1), [])


def _differs(rows: Sequence[Entry], name: str) -> bool:
    column = COLUMNS[name]
    return column.tells and len({column.cell(row).text for row in rows}) > 1
