"""Self time of modules that compute nothing: memory is returned to the operating system.

When the last name of a large tensor goes away, the C library unmaps its pages, and that takes time
by the page. A container such as `torch.nn.Sequential` lets go of one layer's output when the next
one has run, so that this time is its own. docs/reading-the-numbers.md has the measurements.
"""

from __future__ import annotations

from math import prod

from layerbench import units
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.tree import ancestors
from layerbench.reporters import formatting

# Between two calls Python was seen to take up to 40 µs in a module's own forward.
PER_CALL_S = 100e-6
# Functions are timed in a pass of their own: a rest smaller than this part of the self time may be
# the difference between two passes.
LEAST_PART = 0.25
# The C library keeps what is smaller for the next tensor (glibc: M_MMAP_THRESHOLD, 128 KiB at
# first, growing with what is freed).
LARGE = 2**18


def freeing(record: Profile) -> dict[str, float]:
    """Seconds of median self time that are probably spent in giving memory back, by path.

    Of a module that holds others which were timed: its self time less that of its functions, where
    that is far more than Python takes between the calls and large tensors (`LARGE` elements) came
    out of what it called. Nothing where functions were not timed, or on an accelerator, whose
    allocator keeps memory.
    """
    plan = record.plan
    if record.environment.device.kind != "cpu" or plan.granularity != "layers":
        return {}
    if not plan.function_iterations or "functions" in record.absent:
        return {}
    return {
        path: rest
        for path, called in _called_by(record).items()
        for rest in [_rest(called.holder, called.rows)]
        if rest is not None
    }


def remarks(record: Profile) -> dict[str, str]:
    """What a report says beside a row, by path."""
    freed = freeing(record)
    remarks_by_path = {}
    for row in record.layers:
        if row.path in freed and row.self_:
            time = units.seconds(freed[row.path], formatting.half_width(row.self_))
            remarks_by_path[row.path] = f"freeing memory: {time} of self time"
    return remarks_by_path


def in_all(record: Profile) -> str:
    """What a report says of the whole; empty where no row is freeing memory."""
    freed = freeing(record)
    return (
        f"freeing memory: {units.seconds(sum(freed.values()))} of self time in all that no "
        "function of the module takes, probably the C library giving large tensors back to "
        "the operating system (docs/reading-the-numbers.md)"
        if freed
        else ""
    )


class _Called:
    """A timed module and the timed rows whose calls it makes."""

    def __init__(self, holder: LayerRow) -> None:
        self.holder = holder
        self.rows: list[LayerRow] = []


def _called_by(record: Profile) -> dict[str, _Called]:
    timed = {row.path: _Called(row) for row in record.layers if row.inclusive}
    for row in record.layers:
        if row.inclusive:
            # A list of modules is never called itself: whoever holds it calls them.
            holder = next((path for path in ancestors(row.path) if path in timed), None)
            if holder is not None:
                timed[holder].rows.append(row)
    return timed


def _rest(holder: LayerRow, called: list[LayerRow]) -> float | None:
    """The self time that neither functions nor Python explain; ``None`` where there is none."""
    if holder.self_ is None or not any(row.kind == "module" for row in called):
        return None
    if not any(prod(shape) >= LARGE for row in called for shape in row.output_shapes):
        return None
    own = holder.self_.median
    functions = (row.inclusive for row in called if row.kind == "function")
    rest = own - sum(times.median for times in functions if times)
    calls = holder.calls + sum(row.calls for row in called)
    return rest if rest > max(calls * PER_CALL_S, LEAST_PART * own) else None
