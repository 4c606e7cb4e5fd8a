"""Plain text, made to be read in a pull request and searched with grep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters.documents import document, layout
from layerbench.reporters.formatting import WIDEST
from layerbench.text import shown

NAME = "txt"
SUFFIX = ".txt"

WIDTH = 118
_NAME_WIDTH = 10
# Of the first screen, the lines of the smallest usual terminal.
HEIGHT = 24
# Of the longest cell, what a cut leaves at least: the rest of a path still says where it is.
_LEAST_LEFT = 2 / 3
_SHORTEST = 12


def render(record: Frozen, view: View = USUAL) -> str:
    """The whole report of a record of any kind."""
    made = document(shown(record), view)
    sections = [_lines(section, "", WIDTH) for section in layout.of_format(made.sections, NAME)]
    return "\n\n".join("\n".join(lines) for lines in (head(made, view), *sections)) + "\n"


def head(made: layout.Document, view: View) -> list[str]:
    """The lines of a document's first screen, as wide as it says.

    They are at most `HEIGHT`, unless somebody wants more layers than usual: tables that may be
    shorter go without their last rows.
    """
    parts = layout.of_format(made.head, NAME)
    most = HEIGHT if view.top <= USUAL.top else None
    width = view.width
    while True:
        body = [line for part in parts for line in _in_head(part, width)]
        title = _wrap(made.title, width)
        lines = [*title, "=" * max(map(len, title)), *body]
        shorter = parts if most is None or len(lines) <= most else _shorter(parts)
        if shorter == parts:
            return lines
        parts = shorter


def _in_head(part: layout.Part, width: int) -> list[str]:
    lines = _lines(part, "", width)
    return ["", *lines] if isinstance(part, layout.Section) and part.title else lines


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
            fields = [
                line for name, text in part.items if text for line in _field(name, text, width)
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
    column = max(_NAME_WIDTH, len(name) + 1)
    first, *more = [text] if name == layout.COMMAND else _wrap(text, width - column)
    return [f"{name:<{column}}{first}", *(" " * column + line for line in more)]


def _paragraph(part: layout.Text, indent: str, width: int) -> list[str]:
    if not part.wrapped:
        return [indent + part.text]
    if not indent:
        return _wrap(part.text, width)
    return _hanging(part.text, indent if part.indented else "", width)


def _table(part: layout.Table, indent: str, width: int) -> list[str]:
    if part.omitted_first or part.cut is not None:
        part = _fitted(part, width)
    sides = part.align.replace("c", "l")
    if part.header:
        return aligned(part.header, part.rows, sides)
    turned = zip(*part.rows, strict=True)
    columns = [_column("", cells, side)[2:] for cells, side in zip(turned, sides, strict=True)]
    return [indent + "  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _fitted(part: layout.Table, width: int) -> layout.Table:
    """The table without the columns that there is no room for, and with shorter cells."""
    kept = [*range(len(part.header))]
    for column in (None, *part.omitted_first):
        kept = [at for at in kept if at != column]
        last = column == (part.omitted_first or (None,))[-1]
        over = max(map(len, _table(_columns(part, kept), "", width))) - width
        longest = _longest(part)
        if over <= 0:
            return _columns(part, kept)
        if longest - over >= longest * _LEAST_LEFT or last:
            return _columns(_cut(part, max(longest - over, _SHORTEST)), kept)
    raise AssertionError(part)


def _longest(part: layout.Table) -> int:
    """Characters of the longest cell that may be cut."""
    return max((len(row[part.cut]) for row in part.rows), default=0) if part.cut is not None else 0


def _columns(part: layout.Table, kept: Sequence[int]) -> layout.Table:
    rows = [[row[at] for at in kept] for row in part.rows]
    align = "".join(part.align[at] for at in kept)
    return layout.Table([part.header[at] for at in kept], rows, align)


def _cut(part: layout.Table, length: int) -> layout.Table:
    rows = [
        [_end_of(cell, length) if at == part.cut else cell for at, cell in enumerate(row)]
        for row in part.rows
    ]
    return replace(part, rows=rows)


def _end_of(text: str, length: int) -> str:
    """The end, which says what it is within what is above it."""
    return text if len(text) <= length else f"…{text[1 - length :]}"


def _hanging(text: str, indent: str, width: int) -> list[str]:
    """Lines of at most ``width``, continued two further in."""
    first, *more = _wrap(text, width - len(indent) - 2)
    return [indent + first, *(f"{indent}  {line}" for line in more)]


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width``; a long word, such as a path, is left whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """The lines of a table.

    Args:
        header: column names.
        rows: cells, as many in each row as there are names.
        align: a letter a column: ``l`` left, ``r`` right, ``.`` on the decimal point.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    padded = [
        _column(name, cells, side) for name, cells, side in zip(header, columns, align, strict=True)
    ]
    if align[-1] == "l":
        # Nothing follows it: one long remark must not make every line as long.
        padded[-1] = [*padded[-1][:2], *columns[-1]]
    # An unnamed column belongs to the one before it: one blank between them instead of two.
    joints = ["", *("  " if name else " " for name in header[1:])]
    return [
        "".join(joint + cell for joint, cell in zip(joints, line, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]


def _column(name: str, cells: Sequence[str], side: str) -> list[str]:
    """The name, a rule and the cells, all of one width."""
    if side == ".":
        cells = _on_point(cells)
    # A cell wider than this makes no room for itself in the other rows: it moves its own row only.
    width = max(len(text) for text in (name, *cells) if len(text) <= WIDEST)
    pad = str.ljust if side == "l" else str.rjust
    # A column of marks or remarks that are all empty takes no room.
    return [pad(name, width), ("-" if name else " ") * width, *(pad(text, width) for text in cells)]


def _on_point(cells: Sequence[str]) -> list[str]:
    """Cells padded on the right so that their decimal points stand below each other."""
    after = [min(len(text) - _point(text), WIDEST) for text in cells]
    most = max(after, default=0)
    return [text + " " * (most - own) for text, own in zip(cells, after, strict=True)]


def _point(text: str) -> int:
    """Where the decimal point stands, or would."""
    number = text.partition(" ")[0]
    return number.index(".") if "." in number else len(number)
