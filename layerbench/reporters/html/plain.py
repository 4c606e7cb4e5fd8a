"""The page of a record that has no rows of layers: its document, without any script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from html import escape as escaped
from itertools import zip_longest

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters.documents import document, layout
from layerbench.text import shown

escape = partial(escaped, quote=False)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { opacity: .75; }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #8886; padding: .2rem .7rem; text-align: left; white-space: pre; }
th[scope=row] { font-weight: normal; }
caption { text-align: left; font-weight: bold; max-width: calc(100vw - 2rem); }
td { font-variant-numeric: tabular-nums; }
.r { text-align: right; }
code { font-size: .95em; }
@media (max-width: 40rem) {
th, td { padding: .2rem .35rem; }
th[scope=row] { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 7rem; }
}
@media print {
:root { color-scheme: light; }
.scroll { overflow: visible; }
table { font-size: 8pt; }
th, td { padding: .1rem .35rem; white-space: pre-wrap; }
tr { break-inside: avoid; }
}"""


# What a telephone leaves out of the first screen, which shall show its figures.
_ASIDE = ("type", "input→output", "output")


def page(record: Frozen) -> str:
    """The page of a record of any kind; its values are text, never markup."""
    made = document(shown(record))
    body = "\n".join(filter(None, [first_screen(made), _all(made.sections)]))
    return _PAGE.format(title=escape(made.title), style=_STYLE, body=body)


def head(record: Frozen, view: View = USUAL) -> str:
    """The first screen of a record of any kind, less its title, to stand in another page."""
    return first_screen(document(shown(record), view))


def first_screen(made: layout.Document) -> str:
    """What stands below a document's title; its tables are named by captions."""
    return "\n".join(
        _captioned(part) if isinstance(part, layout.Section) else _markup(part)
        for part in layout.of_format(made.head, "html")
    )


def _captioned(section: layout.Section) -> str:
    """A section of one table, named in the table itself: it is read out with it."""
    parts = layout.of_format(section.parts, "html")
    if len(parts) == 1 and isinstance(parts[0], layout.Table):
        return _table(parts[0], section.title)
    return _markup(section)


def _all(parts: Iterable[layout.Part]) -> str:
    return "\n".join(_markup(part) for part in layout.of_format(parts, "html"))


def _markup(part: layout.Part) -> str:
    match part:
        case layout.Section():
            heading = f"<h2>{escape(part.title)}</h2>\n" if part.title else ""
            return heading + _all(part.parts)
        case layout.Fields():
            fields = [_field(name, text) for name, text in part.items if text]
            return "\n".join(["<dl>", *fields, "</dl>"])
        case layout.Text():
            text = escape(part.text)
            return f"<p><strong>{text}</strong></p>" if part.strong else f"<p>{text}</p>"
        case layout.Lines():
            return "\n".join(
                ["<ul>", *(f"<li>{escape(line)}</li>" for line in part.lines), "</ul>"]
            )
        case layout.Table():
            return _table(part)
    raise TypeError(f"a document has no {type(part).__name__}")


def _field(name: str, text: str) -> str:
    marked = f"<code>{escape(text)}</code>" if name == layout.COMMAND else escape(text)
    return f"<dt>{escape(name)}</dt><dd>{marked}</dd>"


def _table(part: layout.Table, caption: str = "") -> str:
    named = [f"<caption>{escape(caption)}</caption>"] if caption else []
    columns = ["col"] * len(part.header)
    kinds = [_kind(*column) for column in zip_longest(part.align, part.header, fillvalue="")]
    header = [f"<thead>{_row(part.header, kinds, columns)}</thead>"] if part.header else []
    # Whatever is read of a row, its name is read with it.
    scopes = ["row", *[""] * (len(part.align) - 1)]
    rows = [_row(cells, kinds, scopes) for cells in part.rows]
    table = ["<table>", *named, *header, "<tbody>", *rows, "</tbody>", "</table>"]
    # A region that scrolls can be reached with the keyboard.
    return "\n".join(['<div class="scroll" tabindex="0">', *table, "</div>"])


def _kind(align: str, name: str) -> str:
    """The class of a column's cells."""
    if name in _ASIDE:
        return ' class="aside"'
    return ' class="r"' if align in ("r", ".") else ""


def _row(cells: Sequence[str], kinds: Sequence[str], scopes: Sequence[str]) -> str:
    """A row; a cell with a scope names a column or a row."""
    row = []
    for cell, kind, scope in zip(cells, kinds, scopes, strict=True):
        # An unnamed column has no header.
        opening = f'th scope="{scope}"' if scope and cell else "td"
        row.append(f"<{opening}{kind}>{escape(cell)}</{opening[:2]}>")
    return f"<tr>{''.join(row)}</tr>"
