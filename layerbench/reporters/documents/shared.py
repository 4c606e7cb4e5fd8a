"""What several documents have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerbench import units
from layerbench.records.environment import Environment, Machine, Software
from layerbench.records.workload import Workload
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout

if TYPE_CHECKING:
    # Whose records are not shown is not waited for.
    from layerbench.records.detection_estimate import PartRow
    from layerbench.records.timing import Summary
    from layerbench.records.training_estimate import Seconds
    from layerbench.records.training_step import PhaseRow

PHASE_NAMES = {
    "data": "wait for data",
    "copy": "copy to the device",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimizer": "optimizer",
}
_FIGURES = ("mean", "std", "median", "p5", "p95")


def title(workload: Workload) -> str:
    """What ran on what."""
    return f"{formatting.model_name(workload)} on {workload.input}"


def void(reason: str) -> list[layout.Text]:
    """Why the figures mean nothing; none where they do."""
    return [layout.Text(reason, strong=True)] if reason else []


def block_cells(row: formatting.Row) -> list[str]:
    """Number, type and path of a block."""
    return ["" if row.position is None else str(row.position), row.type, row.path]


def branch(row: formatting.Row) -> str:
    """A row in the tree: its type and the last part of its path, indented by its depth."""
    name = row.path.rpartition(".")[2]
    if getattr(row, "kind", "module") == "function":
        return "  " * row.depth + f"ƒ {name}"
    return "  " * row.depth + (f"{row.type} ({name})" if name else row.type)


def cores(machine: Machine, threads: int | None) -> list[str]:
    """How many there are, and how many threads ran on them where that is known."""
    running = [] if threads is None else [formatting.plural(threads, "thread")]
    return [formatting.plural(machine.cores, "core"), *running]


def versions(software: Software) -> str:
    """What a measurement ran with."""
    packages = {"python": software.python, **software.packages, "layerbench": software.layerbench}
    return formatting.pairs(packages)


def commit(software: Software) -> str:
    """Where the code stood; empty where nobody knows."""
    if software.commit is None:
        return ""
    return software.commit + (" (with uncommitted changes)" if software.dirty else "")


def known(time: Seconds) -> str:
    """A duration with its interval: ``2 h 05 min (95 %: 2 h 01 min to 2 h 10 min)``."""
    low, high = units.duration(time.low), units.duration(time.high)
    return f"{units.duration(time.value)} (95 %: {low} to {high})"


def phase_table(
    title: str, phases: Sequence[PhaseRow], step: Summary | None, *remarks: layout.Text
) -> layout.Section:
    """The phases of a step, and the step; nothing where none was measured."""
    if step is None:
        return layout.Section(title, [])
    rows = [
        [
            name,
            *(formatting.ms(time, figure) for figure in _FIGURES),
            share(time, step),
            time.verdict,
        ]
        for name, time in [*((PHASE_NAMES[p.name], p.time) for p in phases), ("the step", step)]
    ]
    header = ["Phase", "mean ms", "std", "median", "p5", "p95", "share", ""]
    return layout.Section(title, [layout.Table(header, rows, "l.....rl"), *remarks])


def part_cells(parts: Sequence[PartRow], step: Summary) -> list[list[str]]:
    """Name, forward, backward, share of the step and inference of a detector's parts."""
    return [
        [
            part.name,
            formatting.ms(part.forward, "mean"),
            formatting.ms(part.backward, "mean"),
            _of_step(part, step),
            formatting.ms(part.inference, "mean"),
        ]
        for part in parts
    ]


def _of_step(part: PartRow, step: Summary) -> str:
    times = [time.mean for time in (part.forward, part.backward) if time is not None]
    return units.percent(sum(times) / step.mean, digits=1) if times and step.mean else "-"


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


def surroundings(
    environment: Environment, planned_threads: int | None = None
) -> list[tuple[str, str]]:
    """The fields that every report ends its head with: device, software, date, command.

    Args:
        environment: of the measurement.
        planned_threads: what to say of threads where the environment does not know them.
    """
    threads = environment.machine.threads or planned_threads
    place = environment.device.name
    return [
        ("Device", f"{place}, {formatting.plural(threads, 'thread')}" if threads else place),
        ("Software", versions(environment.software)),
        ("Date", f"{environment.started} to {environment.finished}"),
        (layout.COMMAND, environment.command),
    ]
