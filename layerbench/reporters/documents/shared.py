"""What several documents have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from layerbench import units
from layerbench.analysis.portions import by_path
from layerbench.records.conditions import DeviceConditions, WarmUp
from layerbench.records.environment import Environment, Machine, Software
from layerbench.records.view import View
from layerbench.records.workload import Frozen, Workload
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens
from layerbench.text import beginning

if TYPE_CHECKING:
    # Whose records are not shown is not waited for.
    from layerbench.records.compilation import KernelPart
    from layerbench.records.detection_estimate import PartRow
    from layerbench.records.detection_run import DetectionEpoch
    from layerbench.records.timing import Summary
    from layerbench.records.training_estimate import Seconds
    from layerbench.records.training_run import EpochRow
    from layerbench.records.training_step import PhaseRow, StepPhase

PHASE_NAMES: dict[StepPhase, str] = {
    "data": "wait for data",
    "copy": "copy to the device",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimizer": "optimizer",
}
RECOMPUTED = "of it recomputation"
_FIGURES = {"mean ms": "mean", "std": "std", "median": "median", "p5": "p5", "p95": "p95"}


class Measured(Protocol):
    """What every measured record has."""

    @property
    def environment(self) -> Environment:
        """Where it was measured."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""


def title(workload: Workload) -> str:
    """What ran on what."""
    return f"{formatting.model_name(workload)} on {workload.input}"


def void(reason: str) -> list[layout.Text]:
    """Why the figures mean nothing; none where they do."""
    return [layout.Text(reason, strong=True)] if reason else []


FEW_ROUNDS = 30
"""With fewer samples an interval rests on little."""


def few_or_spread(time: Summary) -> Iterator[str]:
    """What weakens a measured time itself."""
    if time.missed:
        yield f"{time.verdict}: {'; '.join(time.missed)}"
    if time.n < FEW_ROUNDS:
        yield f"few rounds: {formatting.plural(time.n, 'sample')}"


def weaknesses(
    environment: Environment, time: Summary | None, *graver: str, busy: str | None = None
) -> list[layout.Text]:
    """What voids a measurement, and the gravest of what weakens it.

    Args:
        environment: that it was made in.
        time: its main figure; ``None`` where there is none.
        graver: what weighs more than what the time and the environment say.
        busy: why the host was too busy, which the environment says where this is left out.
    """
    busy = environment.machine.too_busy if busy is None else busy
    return [*void(busy), *cautions(_weak(environment, time, busy, *graver))]


def every_weakness(
    environment: Environment, time: Summary | None, *graver: str, busy: str | None = None
) -> list[str]:
    """What voids or weakens a measurement, the gravest first; arguments as of `weaknesses`."""
    busy = environment.machine.too_busy if busy is None else busy
    return [*([busy] if busy else []), *_weak(environment, time, busy, *graver)]


def _weak(environment: Environment, time: Summary | None, busy: str, *graver: str) -> list[str]:
    of_time = () if time is None else few_or_spread(time)
    warnings = (warning for warning in environment.warnings if warning != busy)
    return [*graver, *of_time, *warnings]


def ran(model_type: str, parameters: int, *more: str) -> str:
    """What was measured, in one line."""
    size = f"{model_type}, {units.count(parameters, short=True)} parameters"
    return ", ".join([size, *more])


def answer(time: Summary, what: str, rate: str) -> str:
    """``35 ms [34, 36] a step (median, 95 % interval), 57.1 images/s: stable``."""
    median = f"{formatting.time(time, 'median')} {formatting.interval(time)}"
    return f"{median} {what} (median, 95 % interval), {rate}: {time.verdict}"


def phases_line(phases: Sequence[PhaseRow], step: Summary | None, width: int) -> str:
    """The phases of a step with their shares, the longest first."""
    if step is None:
        return ""
    times = (("", PHASE_NAMES[phase.name], phase.time.mean) for phase in phases)
    return screens.sums(by_path(times, step.mean), width)


# Of a step, what waiting for data takes from where on it is worth a change.
_WAITS = 0.1


class Stepped(Protocol):
    """A record of training steps."""

    @property
    def environment(self) -> Environment:
        """Where they were measured."""

    @property
    def phases(self) -> Sequence[PhaseRow]:
        """The parts of a step."""

    @property
    def step(self) -> Summary | None:
        """One of them."""


def phases_summed(record: Stepped, width: int, besides: str) -> layout.Fields:
    """Which phase is slow, what there is besides, and what to try where it is the wait for data."""
    step = record.step
    waits = [phase.time.mean for phase in record.phases if phase.name == "data"]
    part = sum(waits) / step.mean if step and step.mean else 0.0
    worth = part >= _WAITS and not record.environment.machine.too_busy
    advice = f"A step waits for data {units.percent(part)} of its time: try more --workers."
    return layout.Fields(
        [
            ("Phases", phases_line(record.phases, step, width)),
            ("Besides", besides),
            ("Advice", advice if worth else ""),
        ]
    )


_LONGEST_CAUTION = 100


def cautions(reasons: Sequence[str]) -> list[layout.Text]:
    """What weakens the figures of a first screen: the gravest in a line, and how many more."""
    if not reasons:
        return []
    more = f" (and {len(reasons) - 1} more below)" if len(reasons) > 1 else ""
    first, *parts = reasons[0].partition(". ")[0].split("; ")
    room = _LONGEST_CAUTION - len(more)
    for part in parts:
        if len(f"{first}; {part}") <= room:
            first = f"{first}; {part}"
    return [layout.Text(beginning(first, room) + more, strong=True)]


def block_cells(row: formatting.Row) -> dict[str, str]:
    """Number, type and path of a block, by the name of the column."""
    number = "" if row.position is None else str(row.position)
    return {"#": number, "block": row.type, "path": row.path}


def branch(row: formatting.Row, view: View) -> str:
    """A row in the tree: its type and the last part of its path, indented by its depth.

    Rows of one type alone are no tree, and have their whole path.
    """
    if view.type is not None:
        return f"{row.type} {row.path}".rstrip()
    name = row.path.rpartition(".")[2]
    if getattr(row, "kind", "module") == "function":
        return "  " * row.depth + f"ƒ {name}"
    return "  " * row.depth + (f"{row.type} ({name})" if name else row.type)


def layers(parts: Sequence[KernelPart], most: int = 3) -> str:
    """The layers in a kernel of compiled code, each with its share where there are several.

    Args:
        parts: of the kernel; empty where they are not known, as is the text then.
        most: layers that are named.
    """
    if len(parts) < 2:
        return (parts[0].module or screens.MODEL) if parts else ""
    named = [f"{one.module or screens.MODEL} ≈{units.percent(one.share)}" for one in parts[:most]]
    return and_more(named, len(parts) - most)


def and_more(named: Sequence[str], more: int) -> str:
    """``conv1, bn1, 3 more``."""
    return ", ".join([*named, *([f"{more} more"] if more > 0 else [])])


def cores(machine: Machine, threads: int | None) -> list[str]:
    """The number of cores, and of threads if it is known."""
    running = [] if threads is None else [formatting.plural(threads, "thread")]
    return [formatting.plural(machine.cores, "core"), *running]


def conditions(environment: Environment) -> str:
    """An accelerator while it was measured, and how long it was warmed up; empty on a CPU."""
    return "; ".join([*_warm_up(environment.warm_up), *_seen(environment.conditions)])


def _warm_up(taken: WarmUp | None) -> Iterator[str]:
    if taken is not None:
        rounds = formatting.plural(taken.rounds, "round")
        several = f", the longest of {taken.warm_ups}" if taken.warm_ups > 1 else ""
        end = "" if taken.steady else ", when times still changed"
        if taken.unsteady:
            end = f"; at the end of {taken.unsteady} of them times still changed"
        yield f"warm-up {units.duration(taken.seconds)} ({rounds}){several}{end}"


def _seen(seen: DeviceConditions | None) -> Iterator[str]:
    if seen is None:
        return
    if seen.clock_median_hz is not None and seen.clock_p5_hz is not None:
        low = units.frequency(seen.clock_p5_hz)
        clock = f"clock {units.frequency(seen.clock_median_hz)} (median; p5 {low})"
        highest = seen.highest_clock_hz
        yield clock + (f" of at most {units.frequency(highest)}" if highest else "")
    for reason, share in seen.slowed_by.items():
        yield f"{reason} in {units.percent(share)} of {formatting.plural(seen.looks, 'look')}"
    if seen.power_w is not None:
        yield f"{seen.power_w:.0f} W"
    if seen.temperature_c is not None:
        yield f"{seen.temperature_c:.0f} °C"


def versions(software: Software) -> str:
    """What a measurement ran with."""
    packages = {"python": software.python, **software.packages, "layerbench": software.layerbench}
    return formatting.pairs(packages)


def commit(software: Software) -> str:
    """The commit of the code; empty if it is unknown."""
    if software.commit is None:
        return ""
    return software.commit + (" (with uncommitted changes)" if software.dirty else "")


def duration(time: Seconds) -> str:
    """A duration with its interval: ``2 h 05 min (95 %: 2 h 01 min to 2 h 10 min)``."""
    low, high = units.duration(time.low), units.duration(time.high)
    return f"{units.duration(time.value)} (95 %: {low} to {high})"


LAUNCH_BOUND = "w"
"""The mark of what is launch-bound."""
LAUNCH_BOUND_MEANS = "w launch-bound: the device is done long before the host has launched more"


def phase_table(
    title: str,
    phases: Sequence[PhaseRow],
    step: Summary | None,
    *legend: layout.Text,
    bound: Callable[[PhaseRow], bool] = lambda _: False,
    recomputation: Summary | None = None,
) -> layout.Section:
    """The phases of a step, and the step; nothing where none was measured.

    Args:
        title: of the section.
        phases: of the step, in order.
        step: the whole of it.
        legend: what stands below.
        bound: whether a phase is launch-bound.
        recomputation: the part of the backward in which forwards ran again.
    """
    if step is None:
        return layout.Section(title, [])
    more = [
        (column, read)
        for column, read in (("device ms", _busy), ("host ms", _host))
        if any(map(read, phases))
    ]
    waits = [phase for phase in phases if bound(phase)]
    seen = any(phase.kernels is not None for phase in phases)
    times: list[tuple[str, Summary, PhaseRow | None]] = [
        *((PHASE_NAMES[phase.name], phase.time, phase) for phase in phases),
        ("the step", step, None),
    ]
    if recomputation is not None:
        at = [phase.name for phase in phases].index("backward") + 1
        times.insert(at, (RECOMPUTED, recomputation, None))
    rows = [
        {
            "Phase": name,
            **{column: formatting.ms(time, figure) for column, figure in _FIGURES.items()},
            **{
                column: formatting.ms(read(phase) if phase else None, "median")
                for column, read in more
            },
            **({layout.MARK: LAUNCH_BOUND if phase in waits else ""} if waits else {}),
            **({"kernels": _kernels(phase, phases)} if seen else {}),
            "share": share(time, step),
            "": time.verdict,
        }
        for name, time, phase in times
    ]
    align = f"l.....{len(more) * '.'}{'l' * bool(waits)}{'r' * seen}rl"
    marks = layout.Text(LAUNCH_BOUND_MEANS if waits else "", indented=False)
    spread = ("p5", "p95", "std")
    return layout.table(title, rows, align, *legend, marks, omitted_first=spread)


def _kernels(phase: PhaseRow | None, phases: Sequence[PhaseRow]) -> str:
    """How many ran in a phase, or in all of them."""
    counted = [one.kernels for one in ([phase] if phase else phases)]
    return units.count(sum(number or 0 for number in counted))


def _host(phase: PhaseRow) -> Summary | None:
    return phase.host


def _busy(phase: PhaseRow) -> Summary | None:
    return phase.busy


def part_cells(part: PartRow, step: Summary, *, again: bool) -> dict[str, str]:
    """What a part of a detector takes of a step.

    Args:
        part: of the detector.
        step: the whole of it.
        again: whether forwards ran again in the backward of any part.
    """
    parts = (part.forward, part.backward, part.recomputation)
    times = [time.mean for time in parts if time is not None]
    recomputed = formatting.ms(part.recomputation, "mean")
    return {
        "part": part.name,
        "forward ms": formatting.ms(part.forward, "mean"),
        "backward ms": formatting.ms(part.backward, "mean"),
        **({"recomputed ms": recomputed} if again else {}),
        "of the step": formatting.part(sum(times) if times else None, step.mean),
    }


def share(part: Summary | None, whole: Summary) -> str:
    """Of the mean."""
    return formatting.part(None if part is None else part.mean, whole.mean)


def warnings_and_notes(record: Measured, *own: str) -> list[layout.Section]:
    """What a report ends with: the warnings, and the notes with what the report adds to them."""
    return [
        layout.listed("Warnings", record.environment.warnings),
        layout.listed("Notes", [*own, *record.notes]),
    ]


def not_measured(absent: Mapping[str, str]) -> layout.Section:
    """What is not in a record, and why."""
    return layout.listed("Not measured", [f"{what}: {why}" for what, why in absent.items()])


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
        ("While measured", conditions(environment)),
        ("Software", versions(environment.software)),
        *([("Files sent", ", ".join(map(str, environment.sent)))] if environment.sent else []),
        ("Date", f"{environment.started} to {environment.finished}"),
        (layout.COMMAND, environment.command),
    ]


def epochs(
    ran: cells.Cells, kind: type[Frozen], epochs: Sequence[EpochRow | DetectionEpoch]
) -> cells.Rows:
    """A row an epoch: its fields, its losses by name, and its phases; the header before the first.

    Args:
        ran: what is the same in all rows.
        kind: the class of the epochs.
        epochs: one after the other.
    """
    names = [name for name in kind.model_fields if name not in ("phases_s", "losses")]
    columns = dict.fromkeys([*ran, "cautions", *names])
    rows = [
        {
            **cells.fields(epoch, *names),
            **getattr(epoch, "losses", {}),
            **{f"{phase}_s": epoch.phases_s.get(phase) for phase in PHASE_NAMES},
        }
        for epoch in epochs
    ]
    return columns | ran, rows
