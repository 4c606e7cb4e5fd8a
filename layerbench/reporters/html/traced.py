"""The page of a trace: rows, times and kernels as of other records, without a workload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerbench import units
from layerbench.analysis.kernels import short_name
from layerbench.analysis.portions import part_of
from layerbench.records.timing import Summary
from layerbench.records.trace_profile import TraceProfile, TraceRow
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import trace_profile
from layerbench.reporters.html import plain
from layerbench.reporters.html.distributions import FIELDS, folds_of
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.rows import PageRow, columns
from layerbench.reporters.html.schema import Kernels, Metric, PageData, Spread
from layerbench.text import shown

_HOST = ("host", "Host time", "on the host, with the profiler's own cost", "time")
_BACKWARD = ("backward", "Backward, host", "of autograd's nodes that its forward made", "backward")
_DEVICE = (
    *("time", "Device time", "of the kernels that it launched, forward and backward, added up"),
    "kernel_time",
)
_Column = tuple[str, str, str, str]
"""Key, label, where it comes from, and the field of a row; the one without those below it has
``_self`` behind."""


def _times(record: TraceProfile) -> tuple[_Column, ...]:
    """What rows have times of: first what the page is of, as in a profile of the same device."""
    if record.device_coverage is not None:
        return _DEVICE, _HOST, _BACKWARD
    return ("time", *_HOST[1:]), _BACKWARD


def of(record: TraceProfile, view: View) -> PageData:
    """All that a page shows of a trace, with its text made visible.

    Args:
        record: of the trace.
        view: what the first screen shows.
    """
    rows = [_row(row) for row in record.rows]
    metrics = tuple(_metrics(record))
    numbers = {row.path: index for index, row in enumerate(record.rows)}
    steps = formatting.plural(record.steps, "profiler step") if record.steps else "one sample"
    data = PageData(
        title=f"Trace {record.file}",
        subtitle=f"{steps}, {formatting.plural(record.events, 'event')}",
        facts=(),
        source=tuple(_source(record)),
        notes=(trace_profile.NOT_PATHS, trace_profile.WITH_PROFILER),
        warnings=tuple(trace_profile.cautions(record)),
        rows=columns(rows, {}),
        metrics=metrics,
        spreads=tuple(_spreads(record)),
        folds=tuple(folds_of(rows, metrics, None)),
        kernels=_kernels(record, numbers),
    )
    return shown(data).model_copy(update={"head": plain.head(record, view)})


def _row(row: TraceRow) -> PageRow:
    return PageRow(
        path=row.path,
        type=row.type,
        depth=row.depth,
        kind=row.kind,
        calls=row.calls,
        block=row.block,
        note=row.note,
    )


def _source(record: TraceProfile) -> Iterator[tuple[str, str]]:
    yield "Trace", record.file
    if record.devices:
        yield "Device", ", ".join(record.devices)
    yield "Read by", f"layerbench {record.layerbench}"


def _metrics(record: TraceProfile) -> Iterator[Metric]:
    """The figures that at least one row has."""
    number = units.count(record.step.n)
    for key, label, how, field in _times(record):
        times: list[Summary | None] = [getattr(row, field) for row in record.rows]
        selfs: list[Summary | None] = [getattr(row, f"{field}_self") for row in record.rows]
        if any(times):
            yield Metric(
                key=key,
                label=label,
                unit="seconds",
                how=f"{how}: median of {number} steps; areas by the mean",
                values=_medians(times),
                own=_medians(selfs),
                area=tuple(rounded(one.mean) if one else 0.0 for one in selfs),
            )
    if record.device_coverage is not None:
        kernels = [row.kernels or 0 for row in record.rows]
        yield Metric(
            key="kernels",
            label="Device kernels",
            unit="count",
            how="that the device ran in all steps, with those of the rows below",
            values=tuple(kernels),
        )


def _medians(times: Sequence[Summary | None]) -> tuple[float | None, ...]:
    return tuple(None if one is None else rounded(one.median) for one in times)


def _spreads(record: TraceProfile) -> Iterator[Spread]:
    """The distributions over the steps; a single one has none."""
    if record.step.n == 1:
        return
    for key, label, _, inclusive in _times(record):
        own = f"{inclusive}_self"
        for name, what, field in ((key, label, inclusive), (f"own {key}", f"{label}, self", own)):
            times: dict[int, Summary] = {
                at: time
                for at, row in enumerate(record.rows)
                if (time := getattr(row, field)) is not None
                and not (field == own and time == getattr(row, inclusive))
            }
            if times:
                yield Spread(
                    key=name,
                    label=what,
                    fields=FIELDS,
                    rows=tuple(
                        (at, *(rounded(getattr(time, figure)) for figure in FIELDS))
                        for at, time in times.items()
                    ),
                    verdict={a: t.verdict for a, t in times.items() if t.verdict != "stable"},
                    missed={at: time.missed for at, time in times.items() if time.missed},
                )


def _kernels(record: TraceProfile, numbers: dict[str, int]) -> Kernels | None:
    if record.device_coverage is None:
        return None
    names = {name: at for at, name in enumerate(dict.fromkeys(k.name for k in record.kernels))}
    whole = record.device_coverage.whole / record.step.n
    return Kernels(
        names=tuple(names),
        labels=tuple(map(short_name, names)),
        entries=tuple(
            (
                numbers.get(kernel.module, 0),
                names[kernel.name],
                "backward" if kernel.backward else "",
                kernel.calls,
                rounded(kernel.seconds),
                rounded(part_of(kernel.seconds, whole)),
            )
            for kernel in record.kernels
        ),
    )
