"""The text report of a comparison: the whole, what changed, the blocks, every row."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench.records.comparison import ComparedRow, Comparison, Side
from layerbench.reporters import comparison_rows, formatting
from layerbench.reporters.text import layout as page
from layerbench.reporters.text.layout import Section

_HEADER = ["Verdict", "Baseline ms", "Contender ms", "Change", "95 % interval"]
_ALIGN = "l...r"


def render(record: Comparison) -> str:
    """The whole report."""
    return page.joined(
        [
            _outcome(record),
            _header(record),
            _changed(record),
            _blocks(record),
            _tree(record),
            page.listed("Only in the contender", comparison_rows.named(record.added)),
            page.listed("Only in the baseline", comparison_rows.named(record.missing)),
            _differences(record),
            page.listed("Notes", record.notes),
        ]
    )


def _outcome(record: Comparison) -> Section:
    lines = page.titled(comparison_rows.title(record))
    if record.void:
        lines += page.wrap(record.void, page.WIDTH)
    lines += page.wrap(comparison_rows.verdict_sentence(record), page.WIDTH)
    if advice := comparison_rows.advice(record):
        lines += page.wrap(advice, page.WIDTH)
    if record.rows:
        lines += [f"Rows: {comparison_rows.counts(record.rows)}"]
    return lines


def _header(record: Comparison) -> Section:
    lines = page.field("Baseline", _side(record.baseline))
    lines += page.field("Contender", _side(record.contender))
    return lines + page.field("Method", comparison_rows.method(record))


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


def _changed(record: Comparison) -> Section:
    rows = comparison_rows.changed(record)
    if not rows:
        return []
    cells = [[row.path, row.type, *_cells(row), row.note] for row in rows]
    header = ["Path", "Type", *_HEADER, ""]
    return ["What changed", *page.table(header, cells, f"ll{_ALIGN}l")]


def _blocks(record: Comparison) -> Section:
    rows = comparison_rows.blocks(record)
    if not rows:
        return []
    cells = [
        ["" if row.position is None else str(row.position), row.type, row.path, *_cells(row)]
        for row in rows
    ]
    return ["Blocks", *page.table(["#", "Block", "Path", *_HEADER], cells, f"rll{_ALIGN}")]


def _tree(record: Comparison) -> Section:
    if not record.rows:
        return []
    cells = [[_branch(row), *_cells(row), row.note] for row in record.rows]
    return ["Layers", *page.table(["Layer", *_HEADER, ""], cells, f"l{_ALIGN}l")]


def _branch(row: ComparedRow) -> str:
    if row.kind == "function":
        return "  " * row.depth + f"ƒ {row.type}"
    return page.branch(row.type, row.path, row.depth)


def _cells(row: ComparedRow) -> Sequence[str]:
    before, after = comparison_rows.milliseconds(row)
    return [row.verdict, before, after, comparison_rows.ratio(row), comparison_rows.interval(row)]


def _differences(record: Comparison) -> Section:
    cells = [[d.where, d.what, d.baseline, d.contender] for d in record.differences]
    if not cells:
        return ["Workload, plan and environment are the same on both sides."]
    return ["What differs", *page.table(["In", "What", "Baseline", "Contender"], cells, "llll")]
