"""The document of a trace: what it covers, what it lacks, and the times of modules and ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerbench import units
from layerbench.analysis.kernels import short_name
from layerbench.analysis.largest import largest, layers
from layerbench.analysis.portions import by_type
from layerbench.records.timing import Summary
from layerbench.records.trace_profile import Coverage, TraceKernel, TraceProfile, TraceRow
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared, trifles
from layerbench.text import ending

_MOST_LISTED = 20
# Characters of a path on the first screen, whose figures would have no room beside longer ones.
_LONGEST_PATH = 44
NOT_PATHS = (
    "Names are those of the trace, nested as they ran: Conv2d_0 is the first Conv2d that was "
    "called, and no attribute path. A dot in a name is written · in a path."
)
WITH_PROFILER = (
    "The profiler was running: times on the host hold what it takes itself, with with_stack for "
    "every call of Python. Compare shares, and measure with layerbench timer or train-profile."
)
_LEGEND = (
    "ms: on the host, with all that ran meanwhile; self without the rows below and without "
    "autograd's nodes."
)
_BACK = "back: of the nodes of the backward that its forward made."
_ON_DEVICE = (
    "device: of the kernels that it launched, forward and backward, added up; kernels: how many, "
    "in all steps."
)


def document(record: TraceProfile, view: View = USUAL) -> layout.Document:
    """Coverage first, then phases, the tree, operators and kernels."""
    return layout.Document(
        title=f"Trace {record.file}",
        head=_first_screen(record, view),
        sections=[
            _coverage(record),
            layout.listed("What the trace lacks", record.lacks),
            _phases(record),
            _tree(record, view),
            _operators(record),
            _kernels(record),
            layout.listed("Notes", record.notes),
            layout.what_ran(
                [
                    ("Trace", f"{record.file}, {formatting.plural(record.events, 'event')}"),
                    ("Device", ", ".join(record.devices)),
                    ("Read by", f"layerbench {record.layerbench}"),
                ]
            ),
        ],
    )


def cautions(record: TraceProfile) -> list[str]:
    """What weakens the figures, and what the trace lacks."""
    return [*record.notes, *record.lacks]


def _first_screen(record: TraceProfile, view: View) -> list[layout.Part]:
    phases = ", ".join(
        f"{phase.name} {formatting.part(phase.time.mean, record.step.mean)}"
        for phase in record.phases
    )
    of_device = (
        [("Device", _said(record.device_coverage, "kernels"))] if record.device_coverage else []
    )
    return [
        *shared.cautions(cautions(record)),
        layout.Text(_answer(record)),
        _slowest(record, view),
        layout.Fields(
            [
                ("Host", _said(record.host_coverage, "the steps" if record.steps else "the trace")),
                *of_device,
                ("Phases", phases),
                ("By type", screens.sums(by_type(layers(record, "self")), view.width)),
            ]
        ),
    ]


def _answer(record: TraceProfile) -> str:
    """How long a step took, and how sure that is."""
    step, what = record.step, "a step" if record.steps else "the trace"
    if step.n == 1:
        said = f"{units.seconds(step.median)} for {what}: one sample, no interval"
    else:
        said = f"{formatting.time(step, 'median')} for {what} (median of {step.n}"
        said += f", 95 % interval {formatting.interval(step)})"
    if record.busy is not None:
        said += f"; the device worked {formatting.part(record.busy.mean, step.mean)} of it"
    return said


def _said(coverage: Coverage, what: str) -> str:
    """``61.2% of the steps in named modules, ranges 20.0%, ...``."""
    parts = [
        ("modules", coverage.modules),
        ("ranges", coverage.ranges),
        ("operators alone", coverage.operators),
        ("nothing recorded", coverage.rest),
    ]
    shares = [f"{name} {formatting.part(time, coverage.whole)}" for name, time in parts]
    return f"of {what}: {', '.join(shares)}"


def _coverage(record: TraceProfile) -> layout.Section:
    rows = [
        {
            "": name,
            "all": units.seconds(coverage.whole),
            "in modules": _part(coverage.modules, coverage),
            "in ranges": _part(coverage.ranges, coverage),
            "operators alone": _part(coverage.operators, coverage),
            "nothing recorded": _part(coverage.rest, coverage),
        }
        for name, coverage in (("host", record.host_coverage), ("device", record.device_coverage))
        if coverage is not None
    ]
    legend = (
        "Each moment of the host counts once, for the best name that any thread has for it. The "
        "backward counts for the module of its forward. Of the device, kernels add up."
    )
    return layout.table(
        "Coverage: how much of the time has a name", rows, "lrrrrr", layout.Text(legend)
    )


def _part(time: float, coverage: Coverage) -> str:
    return f"{units.seconds(time)} ({formatting.part(time, coverage.whole)})"


def _ms(summary: Summary | None) -> str:
    """Milliseconds of a median; one sample has no interval to set its digits."""
    if summary is None:
        return "-"
    if summary.n == 1:
        return units.milliseconds(summary.median)
    return formatting.ms(summary, "median")


def _columns(row: TraceRow, record: TraceProfile) -> dict[str, str]:
    cells = {"ms": _ms(row.time), "self": _ms(row.time_self)}
    if any(one.backward for one in record.rows):
        cells |= {"back": _ms(row.backward), "back self": _ms(row.backward_self)}
    if record.device_coverage is not None:
        cells |= {"device": _ms(row.kernel_time), "device self": _ms(row.kernel_time_self)}
        cells["kernels"] = formatting.dash(row.kernels, str)
    return cells


def _slowest(record: TraceProfile, view: View) -> layout.Section:
    most = largest(record, view)
    if not most and view.type is None:
        return _without_names(record, view)
    if not most:
        return screens.none_shown(view.type, (row.type for row in record.rows))
    rows = [
        {
            "path": ending(large.row.path, _LONGEST_PATH) or f"(the {large.row.type} itself)",
            "type": large.row.type,
            **_columns(large.row, record),
            "share": units.percent(large.share, digits=1),
        }
        for large in most
    ]
    table = screens.table_of(
        rows,
        {"path": "c", "type": "l", **_POINTED},
        ("back self", "device self", "kernels", "back", "type", "ms"),
    )
    clock = (
        "on the device" if record.device_coverage is not None else "on the host, with the backward"
    )
    first = most[0].row
    share = f"{units.percent(most[0].share, digits=1)} of all"
    title = screens.first_named(
        f"Longest by themselves {clock}",
        first.path or f"the {first.type} itself",
        first.type,
        share,
    )
    return layout.Section(title, [table])


def _without_names(record: TraceProfile, view: View) -> layout.Section:
    """In their place, of a trace with few names besides: kernels, or operators."""
    what = "operator" if record.device_coverage is None else "kernel"
    rows = [*(_operator_rows if record.device_coverage is None else _kernel_rows)(record, view.top)]
    if not rows:
        return layout.Section("", [])
    left, pointed = {what: "c", "of": "l"}, dict.fromkeys(("self ms", "ms"), ".")
    table = screens.table_of(rows, {**left, **pointed}, ("of", "calls"), cut=what)
    return layout.Section(f"Longest {what}s: {rows[0][what]}, {rows[0]['share']} of all", [table])


_POINTED = dict.fromkeys(("ms", "self", "back", "back self", "device", "device self"), ".")


def _phases(record: TraceProfile) -> layout.Section:
    rows = [
        {
            "phase": phase.name,
            "ms": _ms(phase.time),
            "±": "-" if phase.time.n == 1 else formatting.relative_half_width(phase.time),
            "share": formatting.part(phase.time.mean, record.step.mean),
        }
        for phase in record.phases
    ]
    legend = (
        "forward: the outermost modules; backward: autograd's nodes, in whatever thread; the "
        "others: ranges that PyTorch records itself, without forward and backward in them. "
        "share: of all steps together."
    )
    return layout.table("Phases on the host (medians of a step)", rows, "l.rr", layout.Text(legend))


def _tree(record: TraceProfile, view: View) -> layout.Section:
    shown = [row for row in record.rows if view.has(row.type, row.depth)]
    whole = (record.device_coverage or record.host_coverage).whole / record.step.n
    runs = trifles.in_runs(
        shown, view, lambda row: _taken(row, record), whole, trifles.LEAST_OF_MORE
    )
    rows = [_tree_row(run, record, view) for run in runs]
    pointed = len(_columns(record.rows[0], record)) - (record.device_coverage is not None)
    counted = "r" if record.device_coverage is not None else ""
    backward = [_BACK] if "back" in _columns(record.rows[0], record) else []
    device = [_ON_DEVICE] if record.device_coverage is not None else []
    legend = [_LEGEND, *backward, *device, NOT_PATHS]
    return layout.table(
        "Modules and ranges (medians of a step)",
        rows,
        f"lr{'.' * pointed}{counted}l",
        layout.Text(" ".join(legend)),
        layout.Text(WITH_PROFILER),
        formats=layout.FULL,
        omitted_first=("calls", "kernels", "back self", "device self"),
    )


def _taken(row: TraceRow, record: TraceProfile) -> float | None:
    """What it takes with all that is in it, on the clock that the record is about."""
    if record.device_coverage is not None:
        return row.kernel_time.mean if row.kernel_time else 0.0
    return sum(time.mean for time in (row.time, row.backward) if time)


def _tree_row(run: Sequence[TraceRow], record: TraceProfile, view: View) -> dict[str, str]:
    row = run[0]
    columns = _columns(row, record)
    if len(run) > 1:
        label = trifles.label(run, trifles.LEAST_OF_MORE)
        return {"row": label, "calls": "", **dict.fromkeys(columns, ""), "": ""}
    return {"row": _branch(row, view), "calls": str(row.calls), **columns, "": row.note}


def _branch(row: TraceRow, view: View) -> str:
    """A row in the tree: a module by its type and number, a range as it is called."""
    if view.type is not None:
        return f"{row.type} {row.path}".rstrip()
    if not row.path:
        return row.type
    name = row.name if row.kind == "range" else f"{row.type} ({row.path.rpartition('.')[2]})"
    return "  " * row.depth + name


def _operators(record: TraceProfile) -> layout.Section:
    return layout.table(
        "Operators (a step; without those in them)",
        [*_operator_rows(record, _MOST_LISTED)],
        "lr.r",
        _left_out(len(record.operators)),
        formats=layout.FULL,
    )


def _operator_rows(record: TraceProfile, number: int) -> Iterator[dict[str, str]]:
    for one in record.operators[:number]:
        yield {
            "operator": one.name,
            "calls": str(one.calls),
            "self ms": units.milliseconds(one.self_s),
            "share": formatting.part(one.self_s, record.step.mean),
        }


def _left_out(count: int) -> layout.Text:
    """Below a table of the longest: how many there are besides, of so many in all."""
    more = count - _MOST_LISTED
    return layout.Text(f"{f'{more} more take less. ' if more > 0 else ''}Calls are of all steps.")


def _kernels(record: TraceProfile) -> layout.Section:
    return layout.table(
        "Kernels (a step)",
        [*_kernel_rows(record, _MOST_LISTED)],
        "llr.r",
        _left_out(len(record.kernels)),
        formats=layout.FULL,
    )


def _kernel_rows(record: TraceProfile, number: int) -> Iterator[dict[str, str]]:
    device = record.device_coverage
    whole = device.whole / record.step.n if device is not None else 0.0
    for one in record.kernels[:number]:
        yield {
            "kernel": short_name(one.name),
            "of": _of(one),
            "calls": str(one.calls),
            "ms": units.milliseconds(one.seconds),
            "share": formatting.part(one.seconds, whole),
        }


def _of(kernel: TraceKernel) -> str:
    """Whose it is."""
    where = kernel.module or "(no row)"
    return f"{where}, backward" if kernel.backward else where


def rows(record: TraceProfile) -> cells.Rows:
    """The steps, the phases and every module or range, in common columns; then kernels."""
    common = {"file": record.file, "steps": record.steps, "device": "; ".join(record.devices)}
    return common, [*_cells(record)]


_TIMES = ("time", "time_self", "backward", "backward_self", "kernel_time", "kernel_time_self")


def _cells(record: TraceProfile) -> Iterator[cells.Cells]:
    times = [name for name in _TIMES if any(getattr(row, name) for row in record.rows)]

    def made(
        kind: str, path: str, type: str, calls: int | None, **of: Summary | None
    ) -> cells.Cells:
        row: cells.Cells = {"kind": kind, "path": path, "type": type, "calls": calls}
        for name in times:
            row |= cells.figures(name, of.get(name), "mean", "std", "median", "p5", "p95")
        return row

    for phase in record.phases:
        yield made("phase", phase.name, "", None, time=phase.time)
    for row in record.rows:
        of = {name: getattr(row, name) for name in times}
        yield made(row.kind, row.path, row.type, row.calls, **of) | {"kernels": row.kernels}
