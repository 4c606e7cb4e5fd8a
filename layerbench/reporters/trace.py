"""A trace of one representative forward for Perfetto and chrome://tracing.

Trace-event format, complete events (``ph`` is ``X``), microseconds; what the forward is, says
`layerbench.reporters.spans`. Kernels of an accelerator, where they are known, have a line below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import fsum

from layerbench.analysis.kernels import row_of, short_name
from layerbench.records.timing import KernelRow, LayerRow, Profile
from layerbench.reporters import documents, formatting
from layerbench.reporters.spans import Span, label, spans

NAME = "trace"
SUFFIX = ".trace.json"
PROFILES_ONLY = True
NEEDS_LAYERS = True

MICROSECOND = 1e-6
_PROCESS, _THREAD, _DEVICE_THREAD = 1, 1, 2


def render(record: Profile) -> str:
    """The trace as JSON, one event a line.

    Raises:
        UsageError: a profile without layers.
    """
    stretches = spans(record)
    events = [*_names(record), *map(_event, stretches), *_kernels(record, stretches)]
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    other = json.dumps(_origin(record), ensure_ascii=False)
    return f'{{"displayTimeUnit": "ms", "otherData": {other}, "traceEvents": [\n{lines}\n]}}\n'


def _names(record: Profile) -> list[dict[str, object]]:
    title = f"{formatting.model_name(record.workload)} on {record.workload.input}"
    named = {"process_name": title, "thread_name": record.environment.device.name}
    return [_named(key, value, _THREAD) for key, value in named.items()]


def _named(key: str, value: str, thread: int) -> dict[str, object]:
    return {"name": key, "ph": "M", "pid": _PROCESS, "tid": thread, "args": {"name": value}}


def _event(span: Span) -> dict[str, object]:
    row = span.row
    return {
        "name": label(row),
        "cat": row.kind,
        **_when(span.start_s, span.end_s, _THREAD),
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


def _on_device(row: LayerRow) -> dict[str, object]:
    """What only rows of an accelerator have."""
    if row.kernels is None:
        return {}
    return {"host ms": formatting.ms(row.host_inclusive, "median"), "kernels": row.kernels}


def _kernels(record: Profile, stretches: Sequence[Span]) -> Iterator[dict[str, object]]:
    """The kernels on a line of their own, those of a row at its end: what runs before is in it."""
    if not record.kernels:
        return
    yield _named("thread_name", "kernels", _DEVICE_THREAD)
    ran: dict[str, list[KernelRow]] = {}
    rows = {span.row.path for span in stretches}
    for kernel in record.kernels:
        ran.setdefault(row_of(kernel, rows), []).append(kernel)
    for span in stretches:
        kernels = ran.get(span.row.path, [])
        at = max(span.end_s - fsum(kernel.time.mean for kernel in kernels), span.start_s)
        for kernel in kernels:
            until = min(at + kernel.time.mean, span.end_s)
            yield _kernel_event(kernel, at, until)
            at = until


def _kernel_event(kernel: KernelRow, start_s: float, end_s: float) -> dict[str, object]:
    return {
        "name": short_name(kernel.name),
        "cat": "kernel",
        **_when(start_s, end_s, _DEVICE_THREAD),
        "args": {
            "name": kernel.name,
            "path": kernel.module,
            "function": kernel.function,
            "calls": kernel.calls,
            "median ms": formatting.ms(kernel.time, "median"),
        },
    }


def _when(start_s: float, end_s: float, thread: int) -> dict[str, object]:
    start = _microseconds(start_s)
    return {
        "ph": "X",
        "ts": start,
        "dur": round(_microseconds(end_s) - start, 3),
        "pid": _PROCESS,
        "tid": thread,
    }


def _microseconds(seconds: float) -> float:
    """To the nanosecond."""
    return round(seconds / MICROSECOND, 3)


def _origin(record: Profile) -> dict[str, str]:
    environment = record.environment
    return {
        "layerbench": environment.software.layerbench,
        "device": environment.device.name,
        "started": environment.started,
        "command": environment.command,
        "what": "one representative forward: every row takes its mean",
        **{f"caution {number}": text for number, text in enumerate(documents.cautions(record), 1)},
    }
