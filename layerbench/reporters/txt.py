"""Plain text, made to be read in a pull request and searched with grep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters import fitting
from layerbench.reporters.documents import document, layout
from layerbench.text import shown

NAME = "txt"
SUFFIX = ".txt"

WIDTH = 118
_NAME_WIDTH = 10
# Of the first screen, the lines of the smallest usual terminal.
HEIGHT = 24
# Of the first screen, so many lines has one text at most; fewer where there are too many lines.
_LINES_EACH = (4, 2, 1)


def render(record: Frozen, view: View = USUAL) -> str:
    """The whole report of a record of any kind."""
    made = document(shown(record), view)
    sections = [_lines(section, "", WIDTH) for section in layout.of_format(made.sections, NAME)]
    return "\n\n".join("\n".join(lines) for lines in (head(made, view), *sections)) + "\n"


def head(made: layout.Document, view: View) -> list[str]:
    """The lines of a document's first screen, as wide as it says.

    They are at most `HEIGHT`, unless somebody wants more layers than usual: tables that may be
    shorter go without their last rows, and then long texts without their middle.
    """
    most = HEIGHT if view.top <= USUAL.top else None
    for each in _LINES_EACH:
        lines = _as_low(made, view.width, each, most)
        if most is None or len(lines) <= most:
            break
    return lines


def _as_low(made: layout.Document, width: int, each: int, most: int | None) -> list[str]:
    """The first screen with as few rows as it takes, if that is enough.

    Args:
        made: the document.
        width: of a line.
        each: lines of a text.
        most: lines of all.
    """
    title = _wrap(_short(made.title, width, each), width)
    above = [*title, "=" * max(map(len, title))]
    parts = [_brief(part, width, each) for part in layout.of_format(made.head, NAME)]
    while True:
        lines = [*above, *(line for part in parts for line in _in_head(part, width))]
        shorter = parts if most is None or len(lines) <= most else _shorter(parts)
        if shorter == parts:
            return lines
        parts = shorter


def _in_head(part: layout.Part, width: int, indent: str = "") -> list[str]:
    if isinstance(part, layout.Table) and part.header:
        return fitting.on_screen(part, width)
    if not isinstance(part, layout.Section):
        return _lines(part, indent, width)
    title = ["", *_wrap(part.title, width)] if part.title else []
    inner = layout.of_format(part.parts, NAME)
    indent = "  " if part.title else ""
    return [*title, *(line for each in inner for line in _in_head(each, width, indent))]


def _brief(part: layout.Part, width: int, lines: int) -> layout.Part:
    """The part with texts that take so many lines at most."""
    match part:
        case layout.Section():
            parts = [_brief(inner, width, lines) for inner in part.parts]
            return replace(part, title=_short(part.title, width, lines), parts=parts)
        case layout.Fields():
            items = [
                (name, _short(text, width - _column(name), lines)) for name, text in part.items
            ]
            return replace(part, items=items)
        case layout.Text():
            return replace(part, text=_short(part.text, width, lines), wrapped=True)
        case layout.Lines():
            return replace(part, lines=[_short(line, width - 2, lines) for line in part.lines])
    return part


def _short(text: str, width: int, lines: int) -> str:
    """A text without its middle, if it would take more lines."""
    room = lines * width
    short = text
    while len(_wrap(short, width)) > lines:
        short = fitting.middle(text, room)
        room -= max(width // 10, 1)
    return short


def _shorter(parts: Sequence[layout.Part]) -> list[layout.Part]:
    """The parts with one row less in a table that may be shorter."""
    made = list(parts)
    for at, part in enumerate(parts):
        if isinstance(part, layout.Section):
            inner = _shorter(part.parts)
            if inner != list(part.parts):
                made[at] = replace(part, parts=inner)
                return made
        elif isinstance(part, layout.Table) and len(part.rows) > (part.fewest or len(part.rows)):
            made[at] = replace(part, rows=part.rows[:-1])
            return made
    return made


def _all(parts: Iterable[layout.Part], indent: str, width: int) -> list[str]:
    return [line for part in layout.of_format(parts, NAME) for line in _lines(part, indent, width)]


def _lines(part: layout.Part, indent: str, width: int) -> list[str]:
    """A part, in a section whose lines are as far in."""
    match part:
        case layout.Section():
            if not part.title:
                return _all(part.parts, "", width)
            return [*_wrap(part.title, width), *_all(part.parts, "  ", width)]
        case layout.Fields():
            room = width - len(indent)
            fields = [
                line for name, text in part.items if text for line in _field(name, text, room)
            ]
            return [indent + line for line in fields]
        case layout.Text():
            return _paragraph(part, indent, width)
        case layout.Lines():
            return [line for text in part.lines for line in _hanging(text, indent, width)]
        case layout.Table():
            return _table(part, indent, width)
    raise TypeError(f"a document has no {type(part).__name__}")


def _field(name: str, text: str, width: int) -> list[str]:
    """A name, and its text in a column beside it."""
    column = _column(name)
    first, *more = [text] if name == layout.COMMAND else _wrap(text, width - column)
    return [f"{name:<{column}}{first}", *(" " * column + line for line in more)]


def _column(name: str) -> int:
    """Where the text begins beside a name."""
    return max(_NAME_WIDTH, len(name) + 1)


def _paragraph(part: layout.Text, indent: str, width: int) -> list[str]:
    if not part.wrapped:
        return [indent + part.text]
    if not indent:
        return _wrap(part.text, width)
    return _hanging(part.text, indent if part.indented else "", width)


def _table(part: layout.Table, indent: str, width: int) -> list[str]:
    if part.header:
        return fitting.in_report(part, width)
    sides = part.align.replace("c", "l")
    turned = zip(*part.rows, strict=True)
    columns = [
        fitting.column("", cells, side)[2:] for cells, side in zip(turned, sides, strict=True)
    ]
    lines = [indent + "  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return [fitting.middle(line, width) for line in lines]


def _hanging(text: str, indent: str, width: int) -> list[str]:
    """Lines of at most ``width``, continued two further in."""
    first, *more = _wrap(text, width - len(indent) - 2)
    return [indent + first, *(f"{indent}  {line}" for line in more)]


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width``; only a word that is longer, such as a path, is broken."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
