"""What a record says of an accelerator as a whole: what it needs, what launching costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerbench import units
from layerbench.analysis.agreement import Agreement, agreements, span_ratio
from layerbench.analysis.launching import (
    Launching,
    StepLaunching,
    Timed,
    is_launch_bound,
    launching_s,
    needed_s,
    waiting_part,
    whole_of,
)
from layerbench.records.timing import DeviceRounds, Profile, Summary
from layerbench.records.training_step import TrainingProfile, TrainingRow
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared

# Paths that a sentence names.
_MOST_NAMED = 5
BELOW_RESOLUTION = "below the clock's resolution"
"""Of a row whose time on the device is shorter than two events can tell from nothing."""


def needs(record: Timed) -> str:
    """Behind the answer: what of it the device needs, and what launching costs."""
    needed, launching = needed_s(record), launching_s(record)
    rounds = record.device_rounds
    if needed is None or launching is None or rounds is None:
        return ""
    time = rounds.blocked or rounds.span
    half = formatting.half_width(time) if time else 0.0
    cost = units.seconds(launching, formatting.half_width(whole_of(record)))
    part = units.percent(waiting_part(record) or 0)
    device = "The device needs" if rounds.blocked else "Kernels run for"
    bound = ": launch-bound" if is_launch_bound(record) else ""
    return f"{device} {units.seconds(needed, half)} of it, launching costs {cost} ({part}){bound}."


def section(record: Timed) -> layout.Section:
    """The device's times of the whole, and where those of the rows are from."""
    rounds = record.device_rounds
    if rounds is None:
        return layout.Section("", [])
    rows = [
        {
            "": name,
            "median ms": formatting.ms(time, "median"),
            "±": formatting.relative_half_width(time),
            "of the whole": formatting.part(time.median, whole_of(record).median),
            "verdict": time.verdict,
        }
        for name, time in _times(record, rounds)
    ]
    how = layout.Text(_how_of(record, rounds), indented=False)
    return layout.table("Device", rows, "l.rrl", how)


def source(record: Timed) -> Iterator[tuple[str, str]]:
    """The same for a page: label and text."""
    rounds = record.device_rounds
    if rounds is None:
        return
    yield "Device times", _how_of(record, rounds)
    for name, time in _times(record, rounds):
        yield name.capitalize(), f"{formatting.time(time, 'median')} {formatting.interval(time)}"


def phases(record: TrainingProfile) -> Iterator[tuple[str, str]]:
    """The phases of a step for a page: label, and what each took where the clocks differ."""
    launching = StepLaunching.of(record)
    for phase in record.phases:
        parts = [
            formatting.time(phase.time, "median"),
            f"{formatting.time(phase.busy, 'median')} of the device" if phase.busy else "",
            f"{formatting.time(phase.host, 'median')} of the host" if phase.host else "",
            formatting.plural(phase.kernels, "kernel") if phase.kernels is not None else "",
            "launch-bound" if launching.bounds_phase(phase) else "",
        ]
        if phase.host is not None:
            yield shared.PHASE_NAMES[phase.name].capitalize(), ", ".join(filter(None, parts))


def _times(record: Timed, rounds: DeviceRounds) -> Iterator[tuple[str, Summary]]:
    name = "whole" if isinstance(record, Profile) else "the step"
    yield f"{name}, untouched", whole_of(record)
    if rounds.blocked is not None:
        yield f"{name} behind a blocked queue", rounds.blocked
    if rounds.span is not None:
        yield "span of the device rounds", rounds.span
    if rounds.idle is not None:
        yield "idle in the span", rounds.idle


def columns(record: Timed) -> cells.Cells:
    """The same for spreadsheets; none without device rounds."""
    rounds = record.device_rounds
    if rounds is None:
        return {}
    times = {"span": rounds.span, "idle": rounds.idle, "blocked": rounds.blocked}
    return {
        "device_times": rounds.how,
        "resolution_s": rounds.resolution_s,
        **{f"{name}_median_s": time.median if time else None for name, time in times.items()},
        "launching_s": launching_s(record),
        "launch_bound": is_launch_bound(record),
    }


def _how_of(record: Timed, rounds: DeviceRounds) -> str:
    if isinstance(record, Profile) and record.cuda_graph is not None and rounds.how == "kernels":
        return (
            "Device times of rows are those of their kernels in replays of a CUDA graph, which the "
            "profiler saw on the device's clock. A kernel has the layer that the kernel in its "
            "place has in a forward without the graph."
        )
    return _how(rounds)


def _how(rounds: DeviceRounds) -> str:
    """Where the device times of rows come from, and what they cannot tell."""
    if rounds.how is None:
        return "Only the whole was timed: no layer has times of its own."
    if rounds.how == "kernels":
        return (
            "Device times of rows are their kernels', which the profiler saw on the device's clock "
            "in rounds of their own. Host times are from rounds without an event in the queue."
        )
    least = (
        f" They tell {units.seconds(rounds.resolution_s)} from nothing: shorter rows are "
        f"{BELOW_RESOLUTION}."
        if rounds.resolution_s
        else ""
    )
    return (
        "Device times of rows are between events in the queue, at the borders of leaves, behind a "
        f"blocked queue if no note says otherwise: nobody saw the kernels.{least}"
    )


def is_below_resolution(rounds: DeviceRounds | None, time: Summary | None) -> bool:
    """Whether a row's time on the device is shorter than its clock can tell from nothing."""
    least = rounds.resolution_s if rounds else None
    return least is not None and time is not None and time.median < least


def below_in_step(rounds: DeviceRounds | None, row: TrainingRow) -> str:
    """Which of a module's times in a training step are; empty for none."""
    times = {"forward": row.forward, "backward": row.backward}
    below = [name for name, time in times.items() if is_below_resolution(rounds, time)]
    return f"{' and '.join(below)} {BELOW_RESOLUTION}" if below else ""


# --- reconciliation ------------------------------------------------------------------------


def reconciled(record: Profile) -> list[str]:
    """How far the rounds agree with each other, a sentence each."""
    ratio = span_ratio(record)
    exact = (
        [
            "The self times of all rows and the idle time add up to "
            f"{units.ratio(ratio, digits=6)} of the device rounds' span."
        ]
        if ratio is not None
        else []
    )
    return [*exact, *(_said(one) for one in agreements(record))]


def doubts(record: Profile) -> list[str]:
    """The same of those that are too far apart."""
    return [_said(one) for one in agreements(record) if one.is_worth_a_word]


_FIRST = {
    "rows": "By their medians, the rows' device times add up to {} the device needs.",
    "host": "The whole in host rounds is {} it is untouched.",
    "span": "The span of the device rounds is {} the untouched whole.",
}
_CONCERNED = {
    "rows": "as much for each kernel, it is more than 2 % of {}",
    "host": "as much for each call, it is more than 2 % of the host time of {}",
}
_LONGER_SPAN = "the profiler slows the host, which lengthens the idle time and no row"
_SHORTER_SPAN = "the whole begins with an event, the span with the first kernel after it"


def _said(one: Agreement) -> str:
    first = _FIRST[one.what].format(_apart(one))
    if not one.is_worth_a_word:
        return first
    if one.what == "span":
        return f"{first} More than 2 %: {_SHORTER_SPAN if one.apart < 0 else _LONGER_SPAN}."
    if not one.paths:
        return f"{first} More than 2 %."
    return f"{first} More than 2 %: {_CONCERNED[one.what].format(_named(one.paths))}."


def _apart(one: Agreement) -> str:
    size = units.percent(abs(one.apart), digits=2)
    return f"{size} {'less' if one.apart < 0 else 'more'} than{' what' * (one.what == 'rows')}"


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - _MOST_NAMED
    named = ", ".join(path or "the model itself" for path in paths[:_MOST_NAMED])
    return f"{named} and {formatting.plural(more, 'other layer')}" if more > 0 else named


def verdict(record: Profile) -> str:
    """Whether launching bounds the whole, and how many rows."""
    waiting = waiting_part(record)
    if waiting is None:
        return ""
    bound, both = Launching.of(record).count(row for row in record.layers if row.kind == "module")
    are = f"{bound} {'is' if bound == 1 else 'are'}"
    rows = f" Of {formatting.plural(both, 'module')}, {are} launch-bound." if both else ""
    return f"The device waits {units.percent(waiting)} of the untouched whole for the host.{rows}"
