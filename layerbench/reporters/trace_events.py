"""Events as Perfetto and chrome://tracing read them, and the file around them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import fsum

from layerbench.analysis.kernels import short_name
from layerbench.records.timing import KernelRow, Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.reporters import documents, formatting

MICROSECOND = 1e-6
PROCESS, THREAD, DEVICE_THREAD = 1, 1, 2

Event = dict[str, object]


def rendered(record: Profile | TrainingProfile, what: str, events: Iterable[Event]) -> str:
    """The file, one event a line.

    Args:
        record: that the events are of.
        what: they are, in a sentence.
        events: in any order.
    """
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    other = json.dumps(_origin(record, what), ensure_ascii=False)
    return f'{{"displayTimeUnit": "ms", "otherData": {other}, "traceEvents": [\n{lines}\n]}}\n'


def names(record: Profile | TrainingProfile) -> list[Event]:
    """What the process and its first line are called."""
    title = f"{formatting.model_name(record.workload)} on {record.workload.input}"
    named_ = {"process_name": title, "thread_name": record.environment.device.name}
    return [named(key, value, THREAD) for key, value in named_.items()]


def named(key: str, value: str, thread: int) -> Event:
    """A name of a line."""
    return {"name": key, "ph": "M", "pid": PROCESS, "tid": thread, "args": {"name": value}}


def when(start_s: float, end_s: float, thread: int) -> Event:
    """Where an event stands."""
    start = _microseconds(start_s)
    return {
        "ph": "X",
        "ts": start,
        "dur": round(_microseconds(end_s) - start, 3),
        "pid": PROCESS,
        "tid": thread,
    }


def at_the_end(kernels: Iterable[KernelRow], start_s: float, end_s: float) -> Iterable[Event]:
    """The kernels of a stretch at its end, one after the other: what runs before is in it."""
    kernels = list(kernels)
    at = max(end_s - fsum(kernel.time.mean for kernel in kernels), start_s)
    for kernel in kernels:
        until = min(at + kernel.time.mean, end_s)
        yield _kernel(kernel, at, until)
        at = until


def _kernel(kernel: KernelRow, start_s: float, end_s: float) -> Event:
    return {
        "name": short_name(kernel.name),
        "cat": "kernel",
        **when(start_s, end_s, DEVICE_THREAD),
        "args": {
            "name": kernel.name,
            "path": kernel.module,
            "function": kernel.function,
            "calls": kernel.calls,
            "median ms": formatting.ms(kernel.time, "median"),
        },
    }


def _microseconds(seconds: float) -> float:
    """To the nanosecond."""
    return round(seconds / MICROSECOND, 3)


def _origin(record: Profile | TrainingProfile, what: str) -> dict[str, str]:
    environment = record.environment
    return {
        "layerbench": environment.software.layerbench,
        "device": environment.device.name,
        "started": environment.started,
        "command": environment.command,
        "what": what,
        **{f"caution {number}": text for number, text in enumerate(documents.cautions(record), 1)},
    }
