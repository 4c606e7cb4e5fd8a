"""GitHub Markdown: a report less its layers, to paste into an issue or a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters import formatting
from layerbench.reporters.documents import document, layout
from layerbench.text import shown

NAME = "md"
SUFFIX = ".md"


def render(record: Frozen, view: View = USUAL) -> str:
    """The report of a record of any kind.

    Text of the record can neither begin a table's next cell nor markup.
    """
    made = document(shown(record, formatting.markdown), view)
    return f"### {made.title}\n\n{_all([*made.head, *made.sections])}\n"


def _all(parts: Iterable[layout.Part]) -> str:
    return "\n\n".join(_text(part) for part in layout.of_format(parts, NAME))


def _text(part: layout.Part) -> str:
    match part:
        case layout.Section():
            return f"{part.title}:\n\n{_all(part.parts)}" if part.title else _all(part.parts)
        case layout.Fields():
            fields = [(name, text) for name, text in part.items if text and name != layout.COMMAND]
            return "\n".join(f"- {name}: {text}" for name, text in fields)
        case layout.Text():
            return f"**{part.text}**" if part.strong else part.text
        case layout.Lines():
            return "\n".join(f"- {line}" for line in part.lines)
        case layout.Table():
            return _table(part)
    raise TypeError(f"a document has no {type(part).__name__}")


def _table(part: layout.Table) -> str:
    if not part.header:
        return "\n".join(
            f"- {name}: {', '.join(map(str.strip, cells))}" for name, *cells in part.rows
        )
    coded = part.align.find("c")
    rows = [
        [f"`{cell}`" if at == coded and cell else cell for at, cell in enumerate(row)]
        for row in part.rows
    ]
    align = part.align.replace("c", "l").replace(".", "r")
    # A column without a name is for what few rows have.
    filled = [at for at, name in enumerate(part.header) if name or any(row[at] for row in rows)]
    return formatting.markdown_table(
        [part.header[at] for at in filled],
        [[row[at] for at in filled] for row in rows],
        "".join(align[at] for at in filled),
    )
