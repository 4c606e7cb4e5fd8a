"""A trace of one representative forward for Perfetto and chrome://tracing.

Trace-event format, complete events (``ph`` is ``X``), microseconds; what the forward is, says
`layerbench.reporters.spans`.
"""

from __future__ import annotations

import json

from layerbench.records.timing import Profile
from layerbench.reporters import documents, formatting
from layerbench.reporters.spans import Span, label, spans

NAME = "trace"
SUFFIX = ".trace.json"
PROFILES_ONLY = True
NEEDS_LAYERS = True

MICROSECOND = 1e-6
_PROCESS, _THREAD = 1, 1


def render(record: Profile) -> str:
    """The trace as JSON, one event a line.

    Raises:
        UsageError: a profile without layers.
    """
    events = [*_names(record), *(_event(span) for span in spans(record))]
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    other = json.dumps(_origin(record), ensure_ascii=False)
    return f'{{"displayTimeUnit": "ms", "otherData": {other}, "traceEvents": [\n{lines}\n]}}\n'


def _names(record: Profile) -> list[dict[str, object]]:
    title = f"{formatting.model_name(record.workload)} on {record.workload.input}"
    named = {"process_name": title, "thread_name": record.environment.device.name}
    return [
        {"name": key, "ph": "M", "pid": _PROCESS, "tid": _THREAD, "args": {"name": value}}
        for key, value in named.items()
    ]


def _event(span: Span) -> dict[str, object]:
    row = span.row
    return {
        "name": label(row),
        "cat": row.kind,
        "ph": "X",
        "ts": _microseconds(span.start_s),
        "dur": round(_microseconds(span.end_s) - _microseconds(span.start_s), 3),
        "pid": _PROCESS,
        "tid": _THREAD,
        "args": {
            "path": row.path,
            "calls": row.calls,
            "input": formatting.shapes(row.input_shapes),
            "parameters": row.parameters,
            "median ms": formatting.ms(row.inclusive, "median"),
            "self ms": formatting.ms(row.self_, "mean"),
            "verdict": row.inclusive.verdict if row.inclusive else None,
        },
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
