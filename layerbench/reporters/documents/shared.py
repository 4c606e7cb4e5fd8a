"""What documents are made of, and the parts that several have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from layerbench import units
from layerbench.records.environment import Environment
from layerbench.records.timing import Summary
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import PhaseRow
from layerbench.reporters import formatting

PHASE_NAMES = {
    "data": "wait for data",
    "copy": "copy to the device",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimizer": "optimizer",
}
_FIGURES = ("mean", "std", "median", "p5", "p95")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: above it.
        header, rows: cells.
        align: a letter a column: ``l`` left, ``r`` right, ``.`` on the decimal point.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str


@dataclass(frozen=True)
class Document:
    """A report before it has a format.

    Attributes:
        title: of the whole.
        fields: name and text of each line of the head.
        tables: in order; one without rows is left out.
        lists: titled lists of sentences, after the tables.
    """

    title: str
    fields: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    lists: Sequence[tuple[str, Sequence[str]]] = field(default=())


def known(time: Seconds) -> str:
    """A duration with its interval: ``2 h 05 min (95 %: 2 h 01 min to 2 h 10 min)``."""
    low, high = units.duration(time.low), units.duration(time.high)
    return f"{units.duration(time.value)} (95 %: {low} to {high})"


def phase_table(title: str, phases: Sequence[PhaseRow], step: Summary | None) -> Table:
    """The phases of a step, and the step; no rows where none was measured."""
    if step is None:
        return Table(title, [], [], "")
    rows = [
        [
            PHASE_NAMES[phase.name],
            *(formatting.ms(phase.time, name) for name in _FIGURES),
            share(phase.time, step),
            phase.time.verdict,
        ]
        for phase in phases
    ]
    rows.append(
        ["the step", *(formatting.ms(step, name) for name in _FIGURES), "100.0 %", step.verdict]
    )
    header = ["Phase", "mean ms", "std", "median", "p5", "p95", "share", ""]
    return Table(title, header, rows, "l.....rl")


def share(part: Summary | None, whole: Summary) -> str:
    """Of the mean."""
    if part is None or not whole.mean:
        return "-"
    return units.percent(part.mean / whole.mean, digits=1)


def memory_cells(allocated: int | None, reserved: int | None) -> list[str]:
    """Two sizes, a dash for what is not known."""
    return ["-" if size is None else units.bytes_(size) for size in (allocated, reserved)]


def percent(fraction: float) -> str:
    """With two digits behind the point."""
    return units.percent(fraction, digits=2)


def surroundings(environment: Environment) -> list[tuple[str, str]]:
    """The fields that every report ends its head with."""
    software, machine = environment.software, environment.machine
    threads = machine.threads
    place = environment.device.name
    versions = {"python": software.python, **software.packages, "layerbench": software.layerbench}
    return [
        (
            "Device",
            place if threads is None else f"{place}, {formatting.plural(threads, 'thread')}",
        ),
        ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Date", f"{environment.started} to {environment.finished}"),
        ("Command", environment.command),
    ]
