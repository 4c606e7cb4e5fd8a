"""The document of a predicted time beside another predicted or a measured one."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench import units
from layerbench.records.latency_comparison import (
    LatencyChange,
    LatencyComparison,
    LatencySide,
)
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared
from layerbench.reporters.documents.latency_estimate import checked, interval

_ALIGN = {"path": "c", "type": "l"}
_KNOWN_TO = 0.02


def document(record: LatencyComparison, view: View = USUAL) -> layout.Document:
    """Which is faster and how sure that is, then every layer side by side."""
    before, after = record.baseline, record.contender
    model = formatting.model_name(after.workload)
    return layout.Document(
        title=f"{model} on {after.workload.input}, {_named(before)} → {_named(after)}: "
        f"{record.verdict}",
        head=[
            *shared.cautions(cautions(record)),
            layout.Text(_answer(record)),
            layout.Text(_whether_held(record)),
            _most_changed(record, view),
            layout.Fields([(name, _side(side)) for name, side in _sides(record)]),
        ],
        sections=[
            _blocks(record),
            _tree(record, view),
            layout.listed("Only in the contender", record.added),
            layout.listed("Only in the baseline", record.missing),
            _differences(record),
            layout.listed("Notes", record.notes),
        ],
    )


def _sides(record: LatencyComparison) -> Iterator[tuple[str, LatencySide]]:
    yield "Baseline", record.baseline
    yield "Contender", record.contender


def _named(side: LatencySide) -> str:
    return f"{'predicted for' if side.how == 'predicted' else 'measured on'} {side.device}"


def _side(side: LatencySide) -> str:
    """A side's time and where it comes from."""
    step = f", a training step with {side.optimizer}" if side.optimizer else ""
    known = f"; {checked(side.checked)}" if side.checked is not None else ""
    return f"{interval(side.seconds, side.interval)}{step}, {_named(side)} ({side.name}){known}"


def _answer(record: LatencyComparison) -> str:
    before, after = record.baseline, record.contender
    times = [f"{units.seconds(one.seconds)} {one.how}" for one in (before, after)]
    low, high = (f"{100 * (end - 1):+.0f}" for end in (record.ratio_low, record.ratio_high))
    change = f"{100 * (record.ratio - 1):+.1f} % [{low}, {high}]"
    same = units.percent(record.threshold, digits=1)
    return (
        f"The whole model is {record.verdict}: {' → '.join(times)}, {change}; changes up to {same} "
        "count as none."
    )


def _whether_held(record: LatencyComparison) -> str:
    if record.held is not None:
        where = "within" if record.held else "outside"
        return f"The measured time lies {where} the prediction's 90 % interval."
    if record.same_prediction:
        return "Both are the same prediction."
    if record.baseline.how == record.contender.how:
        return "Both are predicted: their errors are taken to be independent."
    return ""


def _most_changed(record: LatencyComparison, view: View) -> layout.Section:
    shown = [row for row in record.rows if view.type in (None, row.type) and _is_leaf(row, record)]
    shown.sort(key=lambda row: abs(row.baseline_s - row.contender_s), reverse=True)
    if not shown:
        types = [row.type for row in record.rows]
        return screens.none_shown(None if view.type in types else view.type, types)
    made = [
        {"path": row.path, "type": row.type, **_cells(row, record)} for row in shown[: view.top]
    ]
    align = {**_ALIGN, **dict.fromkeys(_columns(record), ".")}
    table = screens.table_of(made, align, ("type",))
    title = screens.first_named("Largest change", shown[0].path, shown[0].type)
    return layout.Section(title, [table])


def _is_leaf(row: LatencyChange, record: LatencyComparison) -> bool:
    holders = {other.path.rpartition(".")[0] for other in record.rows}
    return row.path not in holders


def _columns(record: LatencyComparison) -> list[str]:
    return [f"{name.lower()} ms, {side.how}" for name, side in _sides(record)]


def _cells(row: LatencyChange, record: LatencyComparison) -> dict[str, str]:
    times = (row.baseline_s, row.contender_s)
    ms = (units.milliseconds(time, _KNOWN_TO * time) for time in times)
    change = "-" if row.ratio is None else f"{100 * (row.ratio - 1):+.0f} %"
    return {**dict(zip(_columns(record), ms, strict=True)), "change": change}


def _blocks(record: LatencyComparison) -> layout.Section:
    rows = [
        {**shared.block_cells(row), **_cells(row, record)}
        for row in formatting.block_rows(record.rows)
    ]
    return layout.table("Blocks", rows, "rlc..r")


def _tree(record: LatencyComparison, view: View) -> layout.Section:
    rows = [
        {"layer": shared.branch(row, view), **_cells(row, record)}
        for row in record.rows
        if view.has(row.type, row.depth)
    ]
    legend = layout.Text(
        "Layers have no verdict: how wrong predictions of single layers are was not checked.",
        indented=False,
    )
    return layout.table("Layers", rows, "l..r", legend, formats=layout.FULL)


def _differences(record: LatencyComparison) -> layout.Section:
    rows = [
        {"": each.what, "baseline": each.baseline, "contender": each.contender}
        for each in record.differences
    ]
    return layout.table("What differs", rows, "lll")


def cautions(record: LatencyComparison) -> list[str]:
    """What weakens the verdict, the gravest first."""
    unchecked = [
        f"the {name.lower()}'s prediction: {checked(side.checked)}"
        for name, side in _sides(record)
        if side.checked is not None and not side.checked.known
    ]
    return [*unchecked, *record.notes]


def rows(record: LatencyComparison) -> cells.Rows:
    """A row for the whole and for every layer."""
    before, after = record.baseline, record.contender
    common = {
        **cells.what_ran(after.workload),
        "baseline": _named(before),
        "contender": _named(after),
    }
    whole: cells.Cells = {
        "path": "",
        "type": after.model_type,
        "depth": 0,
        "baseline_s": before.seconds,
        "contender_s": after.seconds,
        **cells.fields(record, "ratio", "ratio_low", "ratio_high", "verdict"),
    }
    names = ("path", "type", "depth", "baseline_s", "contender_s", "ratio")
    return common, [whole, *(cells.fields(row, *names) for row in record.rows)]
