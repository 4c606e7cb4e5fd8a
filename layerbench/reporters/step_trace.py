"""A trace of one representative training step: its phases, and in two of them the modules.

A phase takes its mean; on an accelerator whose kernels were seen, that in which the device worked.
The modules of the forward stand in its order, those of the backward in the reverse one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerbench.analysis.launching import StepLaunching
from layerbench.records.timing import Summary
from layerbench.records.training_step import PhaseRow, TrainingProfile, TrainingRow
from layerbench.reporters import formatting
from layerbench.reporters.documents.shared import PHASE_NAMES
from layerbench.reporters.spans import laid_out
from layerbench.reporters.trace_events import (
    DEVICE_THREAD,
    THREAD,
    Event,
    at_the_end,
    named,
    names,
    rendered,
    when,
)

_WHAT = "one representative training step: every phase and every row takes its mean"
_MODULES: dict[str, tuple[Callable[[TrainingRow], Summary | None], bool]] = {
    "forward": (lambda row: row.forward, False),
    "backward": (lambda row: row.backward, True),
    "recomputation": (lambda row: row.recomputation, False),
}


def render(record: TrainingProfile) -> str:
    """The trace as JSON, one event a line."""
    return rendered(record, _WHAT, [*names(record), *_events(record)])


def _events(record: TrainingProfile) -> Iterator[Event]:
    if record.kernels:
        yield named("thread_name", "kernels", DEVICE_THREAD)
    launching = StepLaunching.of(record)
    at = 0.0
    for phase in record.phases:
        until = at + (phase.busy or phase.time).mean
        yield _of_phase(phase, launching, at, until)
        yield from _of_modules(record, phase, launching, at, until)
        at = until


def _of_phase(phase: PhaseRow, launching: StepLaunching, start_s: float, end_s: float) -> Event:
    on_device = {
        "device ms": formatting.ms(phase.busy, "median"),
        "host ms": formatting.ms(phase.host, "median"),
        "kernels": phase.kernels,
        "launch-bound": launching.bounds_phase(phase),
    }
    return {
        "name": PHASE_NAMES[phase.name],
        "cat": "phase",
        **when(start_s, end_s, THREAD),
        "args": {
            "median ms": formatting.ms(phase.time, "median"),
            "verdict": phase.time.verdict,
            **(on_device if phase.busy else {}),
        },
    }


def _of_modules(
    record: TrainingProfile, phase: PhaseRow, launching: StepLaunching, at: float, until: float
) -> Iterator[Event]:
    """The modules of a phase, and the kernels: those of no module at the phase's end."""
    again = record.recomputation
    if phase.name == "backward" and again is not None:
        ran = min(at + again.mean, until)
        yield from _of_rows(record, "recomputation", launching, at, ran)
        at = ran
    yield from _of_rows(record, phase.name, launching, at, until)


def _of_rows(
    record: TrainingProfile, what: str, launching: StepLaunching, at: float, until: float
) -> Iterator[Event]:
    time_of, backwards = _MODULES.get(what, (lambda _: None, False))
    stretches = [
        (record.rows[row], start, end)
        for row, start, end in laid_out(record.rows, time_of, at, until, backwards=backwards)
    ]
    for row, start, end in stretches:
        yield _of_row(row, what, launching, start, end)
    kernels = [
        kernel
        for kernel in record.kernels
        if ("recomputation" if kernel.recomputed else kernel.phase) == what
    ]
    placed = {row.path for row, _, _ in stretches if row.path}
    for row, start, end in stretches:
        own = [kernel for kernel in kernels if kernel.module == row.path and row.path in placed]
        yield from at_the_end(own, start, end)
    yield from at_the_end([k for k in kernels if k.module not in placed], at, until)


def _of_row(
    row: TrainingRow, phase: str, launching: StepLaunching, start_s: float, end_s: float
) -> Event:
    which = list(_MODULES).index(phase)
    time, own, host = (times[which] for times in (row.times, row.own_times, row.host_times))
    on_device = {
        "host ms": formatting.ms(host, "median"),
        "kernels, both ways": row.kernels,
        "launch-bound": launching.bounds(row),
    }
    return {
        "name": f"{row.type} {row.path}" if row.path else row.type,
        "cat": "recomputation" if phase == "recomputation" else "module",
        **when(start_s, end_s, THREAD),
        "args": {
            "path": row.path,
            "calls": row.calls,
            "input": formatting.shapes(row.input_shapes),
            "parameters": row.parameters,
            "median ms": formatting.ms(time, "median"),
            "self ms": formatting.ms(own, "mean"),
            "verdict": time.verdict if time else None,
            **(on_device if host else {}),
        },
    }
