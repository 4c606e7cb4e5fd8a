"""The document of a comparison: the whole, what changed, the blocks, every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from layerbench import units
from layerbench.analysis import disturbance
from layerbench.records.comparison import (
    CHANGES,
    ONLY_WHOLE,
    ComparedRow,
    Comparison,
    Judged,
    Side,
)
from layerbench.records.timing import NOT_AS_COMPILED
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, compared_kernels, layout, screens, shared

_METHODS = {
    "one process": "two records, one or both of one process; their spread is assumed",
    "processes": "two records of several processes each; how far processes lie apart is measured",
    "live, one process": "both measured in turn, in one process",
    "live, processes": "both measured in turn, in each of several fresh processes",
}

_BY_PROCESSES = "times are geometric means of the processes' medians, and their ratio the change"
_IN_TURN = "the change is the median round's, and the times are the median round's, apart by it"
_TIMES = {
    "one process": "times are medians, and their ratio the change",
    "processes": _BY_PROCESSES,
    "live, one process": _IN_TURN,
    "live, processes": _IN_TURN,
}
# Digits of a time, as shares of it that its last digit may be: three show a change of a per cent,
# and more than five say nothing beside a change that is printed to a tenth of a per cent.
_COARSEST, _FINEST = 5e-3, 5e-4
_MOST_NAMED = 20
_ALIGN = "l...r"
_PAGE = frozenset({"html"})


def document(record: Comparison, view: View = USUAL) -> layout.Document:
    """The answer, then how it was found."""
    fields = [
        ("Baseline", _side(record.baseline)),
        ("Contender", _side(record.contender)),
        ("Method", _method(record)),
    ]
    return layout.Document(
        title=_title(record),
        head=[
            *shared.void(record.disturbed),
            *shared.cautions(list(_doubts(record))),
            layout.Text(_verdict_sentence(record)),
            layout.Text(_advice(record)),
            layout.Text(_counts(record.rows)),
            layout.Text(_counts(record.host_rows, "Host times")),
            layout.Text(_counts(record.kernels, "Kernels")),
            layout.Text(_ran(record)),
            _most_changed(record, view),
            compared_kernels.summed(record, view, cells_of),
            layout.Text(compared_kernels.hint(record, view)),
            # A page has rows of layers, and shows of the document what is here.
            compared_kernels.section(record, view, cells_of, _PAGE),
        ],
        sections=[
            _changed(record),
            _changed_on_host(record),
            *_blocks(record),
            _tree(record.rows, view, "Layers"),
            _tree(record.host_rows, view, "Layers on the host's clock"),
            compared_kernels.section(record, view, cells_of, layout.EVERYWHERE - _PAGE),
            layout.listed("Only in the contender", _named(record.added)),
            layout.listed("Only in the baseline", _named(record.missing)),
            *compared_kernels.alone(record, view),
            _differences(record),
            layout.listed("Notes", record.notes),
            layout.what_ran(fields),
        ],
    )


def _side(side: Side) -> str:
    environment = side.environment
    threads = environment.machine.threads or side.plan.threads
    parts = [
        side.name,
        environment.device.name,
        *([formatting.plural(threads, "thread")] if threads else []),
        formatting.plural(side.processes, "process"),
        f"{side.plan.iterations} iterations",
        environment.started,
    ]
    return ", ".join(parts)


# What of the surroundings is the graver if it differs; versions come after these.
_HARDWARE = ("device", "memory of the device", "cpu", "cores")
_SHARE_OF_IT = ("threads", "affinity", "interop threads", "governor", "boost")
# Another version of the code is often what is compared.
_CODE = ("layerbench", "commit")


def _doubts(record: Comparison) -> Iterator[str]:
    """What weakens the verdicts, the gravest first.

    That is a machine that was busy, then surroundings that are not the same, then times that are
    not stable, and last another version of the code.
    """
    yield from (note for note in record.notes if note.endswith(NOT_AS_COMPILED))
    yield from (note for note in record.notes if note.startswith(("When ", ONLY_WHOLE)))
    others = [each.what for each in record.differences if each.where == "environment"]
    others.sort(key=_lightness)
    if set(others) - {*_CODE}:
        yield f"the surroundings differ: {', '.join(others)}"
    yield from (note for note in record.notes if "'s whole model is " in note)
    if others and not set(others) - {*_CODE}:
        yield f"the code differs: {', '.join(others)}"


def _lightness(what: str) -> int:
    """The less it says against a comparison that this differs, the more."""
    if what in _HARDWARE:
        return 0
    if what in _SHARE_OF_IT:
        return 1
    return 3 if what in _CODE else 2


def _ran(record: Comparison) -> str:
    """Which two were compared, in one line."""
    sides = (record.baseline, record.contender)
    devices = dict.fromkeys(side.environment.device.name for side in sides)
    names = " → ".join(side.name for side in sides)
    each = f"{formatting.plural(record.contender.processes, 'process')} a side"
    return f"{names}, {' → '.join(devices)}, {each}"


def _most_changed(record: Comparison, view: View) -> layout.Section:
    """The rows with the largest changes of time that are called SLOWER or FASTER."""
    changed = [row for row in _called(record.rows) if view.type in (None, row.type)]
    changed.sort(key=lambda row: abs(row.baseline_s - row.contender_s), reverse=True)
    shown = changed[: view.top]
    if not shown:
        types = [row.type for row in record.rows]
        return screens.none_shown(None if view.type in types else view.type, types)
    cells = [{"path": row.path, "type": row.type, **_lower(cells_of(row))} for row in shown]
    table = screens.table_of(cells, _SCREEN_ALIGN, ("95 % interval", "type"))
    change = f"{shown[0].verdict} by {ratio(shown[0])}"
    title = screens.first_named("Largest change", shown[0].path, shown[0].type, change)
    return layout.Section(title, [table])


_SCREEN_ALIGN = {
    **{"path": "c", "type": "l", "verdict": "l"},
    **dict.fromkeys(("baseline ms", "contender ms"), "."),
}


def _lower(cells: Mapping[str, str]) -> dict[str, str]:
    return {name[0].lower() + name[1:]: cell for name, cell in cells.items()}


def _called(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    return [row for row in rows if row.verdict in ("SLOWER", "FASTER")]


def _changed(record: Comparison) -> layout.Section:
    return _table_of_called(record.rows, "What changed")


def _changed_on_host(record: Comparison) -> layout.Section:
    return _table_of_called(record.host_rows, "What changed on the host's clock")


def _table_of_called(every: Sequence[ComparedRow], title: str) -> layout.Section:
    changed = _called(every)
    # The largest loss of time first.
    changed.sort(key=lambda row: row.baseline_s - row.contender_s)
    rows = [{"Path": row.path, "Type": row.type, **cells_of(row), "": row.note} for row in changed]
    return layout.table(title, rows, f"cl{_ALIGN}l")


def _blocks(record: Comparison) -> list[layout.Section]:
    """The blocks; with their notes where no row of a layer has them."""
    blocks = formatting.block_rows(record.rows)
    rows = [
        {name.capitalize(): cell for name, cell in shared.block_cells(row).items()} | cells_of(row)
        for row in blocks
    ]
    noted = [cells | {"": row.note} for row, cells in zip(blocks, rows, strict=True)]
    return [
        layout.table("Blocks", rows, f"rlc{_ALIGN}", formats=layout.FULL),
        layout.table("Blocks", noted, f"rlc{_ALIGN}l", formats=layout.BRIEF),
    ]


def _tree(every: Sequence[ComparedRow], view: View, title: str) -> layout.Section:
    rows = [
        {"Layer": _branch(row, view), **cells_of(row), "": row.note}
        for row in every
        if view.has(row.type, row.depth)
    ]
    return layout.table(title, rows, f"l{_ALIGN}l", formats=layout.FULL)


def _branch(row: ComparedRow, view: View) -> str:
    if row.kind == "function" and view.type is None:
        return "  " * row.depth + f"ƒ {row.type}"
    return shared.branch(row, view)


def cells_of(row: Judged) -> dict[str, str]:
    """Verdict, both times, the change and its interval, by the name of the column."""
    before, after = milliseconds(row)
    return {
        "Verdict": row.verdict,
        "Baseline ms": before,
        "Contender ms": after,
        "Change": ratio(row),
        "95 % interval": _interval(row),
    }


def _differences(record: Comparison) -> layout.Section:
    if not record.differences:
        none = layout.Text("Workload, plan and environment are the same on both sides.")
        return layout.Section("", [none])
    rows = [
        {"In": d.where, "What": d.what, "Baseline": d.baseline, "Contender": d.contender}
        for d in record.differences
    ]
    return layout.table("What differs", rows, "llll", names=2)


def _title(record: Comparison) -> str:
    """The work, and the answer without a figure: ``resnet50 on pascal: SAME, some rows SLOWER``."""
    return f"{_work(record)}: {_answer(record)}"


def _answer(record: Comparison) -> str:
    """The outcome in words; figures stand below what weakens them."""
    why = _disturbance(record)
    if record.void:
        return f"UNCLEAR, {why}"
    parts = [
        f"some {what} {name}"
        for name in ("SLOWER", "FASTER")
        for what, judged in (("rows", _every_row(record)), ("kernels", record.kernels))
        if name != record.whole.verdict and any(one.verdict == name for one in judged)
    ]
    rows = " and ".join(_one_kind(parts))
    return ", ".join(filter(None, [record.whole.verdict, why, rows]))


def _every_row(record: Comparison) -> Sequence[ComparedRow]:
    return (*record.rows, *record.host_rows)


def _one_kind(parts: Sequence[str]) -> Sequence[str]:
    """Rows say it; kernels only where no row does."""
    return [part for part in parts if "rows" in part] or parts


def _disturbance(record: Comparison) -> str:
    """Which of the two was disturbed, host or device; empty if neither was."""
    if not record.disturbed:
        return ""
    sides = (record.baseline, record.contender)
    if any(disturbance.of_device(side.environment) for side in sides):
        return "the accelerator was disturbed"
    return "the machine was too busy" if record.void else "the host was too busy"


def _work(record: Comparison) -> str:
    """What ran, once if both sides name it alike."""
    before, after = (shared.title(side.workload) for side in (record.baseline, record.contender))
    return before if before == after else f"{before} → {after}"


def _counts(rows: Sequence[Judged], what: str = "Rows") -> str:
    """``Rows: 1 SLOWER, 0 FASTER, 180 SAME, 32 UNCLEAR``; empty without any."""
    called = Counter(row.verdict for row in rows)
    counts = ", ".join(f"{called[change]} {change}" for change in CHANGES)
    return f"{what}: {counts}" if rows else ""


def ratio(row: Judged) -> str:
    """The change in per cent: ``+10.2 %``."""
    return _percent(row.ratio)


def _interval(row: Judged) -> str:
    """Its 95 % interval: ``[+8.1, +12.4]``."""
    low, high = (_percent(bound).removesuffix(" %") for bound in (row.ratio_low, row.ratio_high))
    return f"[{low}, {high}]"


def _percent(value: float) -> str:
    """A ratio as a change: 1.102 is ``+10.2 %``; twice and more as a factor would be unread."""
    return f"{(value - 1) * 100:+.1f} %"


def milliseconds(row: Judged) -> tuple[str, str]:
    """Both times, to the digits that show the change, or that the ratio's interval leaves.

    They are by the change's own estimator: their ratio is the ratio printed, but for rounding.
    """
    half_width = row.baseline_s * (row.ratio_high - row.ratio_low) / 2
    least, apart = min(row.baseline_s, row.contender_s), abs(row.contender_s - row.baseline_s)
    # A change that is printed as none needs no digits to be seen.
    digit = min(half_width, apart) if apart > _FINEST * least else half_width
    last = min(max(digit, _FINEST * least), _COARSEST * least)
    return units.milliseconds(row.baseline_s, last), units.milliseconds(row.contender_s, last)


def _named(paths: Sequence[str]) -> list[str]:
    """The first paths, and how many more there are."""
    more = len(paths) - _MOST_NAMED
    return [*paths[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]


def _verdict_sentence(record: Comparison) -> str:
    """The outcome for the whole model in one sentence."""
    row = record.whole
    before, after = milliseconds(row)
    allowance = (
        f", and {units.percent(record.allowance, digits=1)} beyond that may be the machine's"
        if record.allowance
        else ""
    )
    if record.clock_allowance:
        of_clock = units.percent(record.clock_allowance, digits=1)
        allowance += f", and {of_clock} the accelerator's clock's"
    return (
        f"The whole model is {row.verdict}: {before} ms → {after} ms, {ratio(row)} "
        f"{_interval(row)} (95 % interval); changes up to "
        f"{units.percent(record.threshold, digits=1)}{allowance} count as none."
    )


def _advice(record: Comparison) -> str:
    """Advice if the two records can show little; empty if there is none."""
    if record.method != "one process" or record.void:
        return ""
    return (
        "With one process on a side only large changes can be told: measure both with "
        "--processes 5, or compare --live."
    )


def _method(record: Comparison) -> str:
    """The method, the meaning of the times, and the rate of false alarms."""
    rate = (
        f"; of comparisons of a model with itself at most {units.percent(record.alarm_rate)} call "
        "any row SLOWER or FASTER"
        if record.alarm_rate
        else ""
    )
    return f"{_METHODS[record.method]}; {_TIMES[record.method]}{rate}"


def cautions(record: Comparison) -> list[str]:
    """What voids or weakens the verdicts, the gravest first."""
    return [*([record.disturbed] if record.disturbed else []), *_doubts(record)]


def rows(record: Comparison, view: View = USUAL) -> cells.Rows:
    """The whole, and a row for each layer; for each kernel, too, where they are wanted."""
    both = {
        "baseline": record.baseline.name,
        "contender": record.contender.name,
        **cells.what_ran(record.contender.workload),
        **cells.fields(record, "method", "threshold", "allowance", "clock_allowance"),
        **cells.fields(record, "alarm_rate", "void", "void_in_part"),
    }
    on_device = [cells.fields(row) for row in (record.whole, *record.rows)]
    on_host = [{**cells.fields(row), "clock": "host"} for row in record.host_rows]
    of_kernels = compared_kernels.rows(record) if view.kernels else []
    return both, [*on_device, *on_host, *of_kernels]
