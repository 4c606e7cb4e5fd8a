"""The document of a comparison: the whole, what changed, the blocks, every row."""

from __future__ import annotations

from layerbench.records.comparison import ComparedRow, Comparison, Side
from layerbench.reporters import comparison_rows, formatting
from layerbench.reporters.documents.parts import (
    FULL,
    Document,
    Fields,
    Section,
    Table,
    Text,
    listed,
    table,
)
from layerbench.reporters.documents.shared import block_cells, branch, void

_HEADER = ["Verdict", "Baseline ms", "Contender ms", "Change", "95 % interval"]
_ALIGN = "l...r"


def document(record: Comparison) -> Document:
    """The answer, then how it was found."""
    counts = f"Rows: {comparison_rows.counts(record.rows)}" if record.rows else ""
    fields = [
        ("Baseline", _side(record.baseline)),
        ("Contender", _side(record.contender)),
        ("Method", comparison_rows.method(record)),
    ]
    return Document(
        title=comparison_rows.title(record),
        head=[
            *void(record.void),
            Text(comparison_rows.verdict_sentence(record)),
            Text(comparison_rows.advice(record)),
            Text(counts),
        ],
        sections=[
            Section("", [Fields(fields)]),
            _changed(record),
            _blocks(record),
            _tree(record),
            listed("Only in the contender", comparison_rows.named(record.added)),
            listed("Only in the baseline", comparison_rows.named(record.missing)),
            _differences(record),
            listed("Notes", record.notes),
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


def _changed(record: Comparison) -> Section:
    rows = [[row.path, row.type, *_cells(row), row.note] for row in comparison_rows.changed(record)]
    return table("What changed", ["Path", "Type", *_HEADER, ""], rows, f"cl{_ALIGN}l")


def _blocks(record: Comparison) -> Section:
    rows = [[*block_cells(row), *_cells(row)] for row in comparison_rows.blocks(record)]
    return table("Blocks", ["#", "Block", "Path", *_HEADER], rows, f"rlc{_ALIGN}")


def _tree(record: Comparison) -> Section:
    rows = [[_branch(row), *_cells(row), row.note] for row in record.rows]
    layers = Table(["Layer", *_HEADER, ""], rows, f"l{_ALIGN}l")
    return Section("Layers", [layers], formats=FULL)


def _branch(row: ComparedRow) -> str:
    return branch(row).removesuffix("()")


def _cells(row: ComparedRow) -> list[str]:
    before, after = comparison_rows.milliseconds(row)
    return [row.verdict, before, after, comparison_rows.ratio(row), comparison_rows.interval(row)]


def _differences(record: Comparison) -> Section:
    rows = [[d.where, d.what, d.baseline, d.contender] for d in record.differences]
    if not rows:
        return Section("", [Text("Workload, plan and environment are the same on both sides.")])
    return table("What differs", ["In", "What", "Baseline", "Contender"], rows, "llll")
