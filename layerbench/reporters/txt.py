"""Plain text, made to be read in a pull request and searched with grep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from layerbench.records.workload import Frozen
from layerbench.reporters.documents import document, layout
from layerbench.reporters.formatting import WIDEST
from layerbench.text import shown

NAME = "txt"
SUFFIX = ".txt"

WIDTH = 118
_NAME_WIDTH = 10


def render(record: Frozen) -> str:
    """The whole report of a record of any kind."""
    made = document(shown(record))
    head = [made.title, "=" * len(made.title), *_all(made.head, "")]
    sections = [_lines(section, "") for section in layout.of_format(made.sections, NAME)]
    return "\n\n".join("\n".join(lines) for lines in (head, *sections)) + "\n"


def _all(parts: Iterable[layout.Part], indent: str) -> list[str]:
    return [line for part in layout.of_format(parts, NAME) for line in _lines(part, indent)]


def _lines(part: layout.Part, indent: str) -> list[str]:
    """A part, in a section whose lines are as far in."""
    match part:
        case layout.Section():
            return [part.title, *_all(part.parts, "  ")] if part.title else _all(part.parts, "")
        case layout.Fields():
            fields = [line for name, text in part.items if text for line in _field(name, text)]
            return [indent + line for line in fields]
        case layout.Text():
            return _paragraph(part, indent)
        case layout.Lines():
            return [line for text in part.lines for line in _hanging(text, indent)]
        case layout.Table():
            return _table(part, indent)
    raise TypeError(f"a document has no {type(part).__name__}")


def _field(name: str, text: str) -> list[str]:
    """A name, and its text in a column beside it."""
    first, *more = [text] if name == layout.COMMAND else _wrap(text, WIDTH - _NAME_WIDTH)
    return [f"{name:<{_NAME_WIDTH}}{first}", *(" " * _NAME_WIDTH + line for line in more)]


def _paragraph(part: layout.Text, indent: str) -> list[str]:
    if not part.wrapped:
        return [indent + part.text]
    if not indent:
        return _wrap(part.text, WIDTH)
    return _hanging(part.text, indent if part.indented else "")


def _table(part: layout.Table, indent: str) -> list[str]:
    sides = part.align.replace("c", "l")
    if part.header:
        return aligned(part.header, part.rows, sides)
    turned = zip(*part.rows, strict=True)
    columns = [_column("", cells, side)[2:] for cells, side in zip(turned, sides, strict=True)]
    return [indent + "  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _hanging(text: str, indent: str) -> list[str]:
    """Lines of at most `WIDTH`, continued two further in."""
    first, *more = _wrap(text, WIDTH - len(indent) - 2)
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
