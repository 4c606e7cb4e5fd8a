"""Any document as text."""

from __future__ import annotations

from layerbench.records.workload import Frozen
from layerbench.reporters.documents import document
from layerbench.reporters.text import layout
from layerbench.reporters.text.layout import Section


def render(record: Frozen) -> str:
    """The whole report of a record that `document` has a document of."""
    found = document(record)
    head = [*layout.titled(found.title)]
    for name, text in found.fields:
        head += _field(name, text)
    tables = [
        [table.title, *layout.table(table.header, table.rows, table.align)]
        for table in found.tables
        if table.rows
    ]
    lists = [layout.listed(title, lines) for title, lines in found.lists]
    return layout.joined([head, *tables, *lists])


def _field(name: str, text: str) -> Section:
    # A command is copied: it stays on one line.
    return [f"{name:<10}{text}"] if name == "Command" else layout.field(name, text)
