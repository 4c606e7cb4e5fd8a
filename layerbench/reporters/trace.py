"""A trace of one representative forward, or training step, for Perfetto and chrome://tracing.

Trace-event format, complete events (``ph`` is ``X``), microseconds; what the forward is, says
`layerbench.reporters.spans`. Kernels of an accelerator, where they are known, have a line below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerbench.analysis.kernels import row_of
from layerbench.records.timing import KernelRow, LayerRow, Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.reporters import formatting, step_trace
from layerbench.reporters.spans import Span, label, spans
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

NAME = "trace"
SUFFIX = ".trace.json"
PROFILES_ONLY = True
STEPS_TOO = True
NEEDS_LAYERS = True


def render(record: Profile | TrainingProfile) -> str:
    """The trace as JSON, one event a line.

    Raises:
        UsageError: a profile without layers.
    """
    if isinstance(record, TrainingProfile):
        return step_trace.render(record)
    stretches = spans(record)
    events = [*names(record), *map(_event, stretches), *_kernels(record, stretches)]
    return rendered(record, "one representative forward: every row takes its mean", events)


def _event(span: Span) -> Event:
    row = span.row
    return {
        "name": label(row),
        "cat": row.kind,
        **when(span.start_s, span.end_s, THREAD),
        "args": {
            "path": row.path,
            "calls": row.calls,
            "input": formatting.shapes(row.input_shapes),
            "parameters": row.parameters,
            "median ms": formatting.ms(row.inclusive, "median"),
            "self ms": formatting.ms(row.self_, "mean"),
            "verdict": row.inclusive.verdict if row.inclusive else None,
            **_on_device(row),
        },
    }


def _on_device(row: LayerRow) -> Event:
    """What only rows of an accelerator have."""
    if row.kernels is None:
        return {}
    return {"host ms": formatting.ms(row.host_inclusive, "median"), "kernels": row.kernels}


def _kernels(record: Profile, stretches: Sequence[Span]) -> Iterator[Event]:
    """The kernels on a line of their own, those of a row at its end."""
    if not record.kernels:
        return
    yield named("thread_name", "kernels", DEVICE_THREAD)
    ran: dict[str, list[KernelRow]] = {}
    rows = {span.row.path for span in stretches}
    for kernel in record.kernels:
        ran.setdefault(row_of(kernel, rows), []).append(kernel)
    for span in stretches:
        yield from at_the_end(ran.get(span.row.path, []), span.start_s, span.end_s)
