"""What the text reports share: titled sections, fields of a header, aligned tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from layerbench.records.environment import Environment

WIDTH = 118
# A cell wider than this makes no room for itself in the other rows: it moves its own row only.
WIDEST = 400

Section = list[str]


def joined(sections: Iterable[Section]) -> str:
    """The report: sections with an empty line between, empty ones left out."""
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def titled(title: str) -> Section:
    """A title and its rule."""
    return [title, "=" * len(title)]


def void(environment: Environment) -> Section:
    """Why the figures mean nothing, as the first lines after the title; none where they do."""
    reason = environment.machine.too_busy
    return wrap(reason, WIDTH) if reason else []


def listed(title: str, lines: Iterable[str]) -> Section:
    """A titled list; nothing if it has no lines."""
    found = [part for line in lines for part in wrapped(line, "  ")]
    return [title, *found] if found else []


def field(name: str, text: str) -> Section:
    """A line of the header; none without text."""
    if not text:
        return []
    first, *more = wrap(text, WIDTH - 10)
    return [f"{name:<10}{first}", *(" " * 10 + line for line in more)]


def pairs(values: dict[str, str]) -> str:
    """Names and values, with commas."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def wrapped(text: str, indent: str) -> Section:
    """Lines of at most `WIDTH`, continued two further in."""
    first, *more = wrap(text, WIDTH - len(indent) - 2)
    return [indent + first, *(f"{indent}  {line}" for line in more)]


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width``; a long word, such as a path, is left whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> Section:
    """Aligned columns.

    Args:
        header: column names.
        rows: cells, as many in each row as there are names.
        align: a letter a column: ``l`` left, ``r`` right, ``.`` on the decimal point.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    aligned = [
        _column(name, cells, side) for name, cells, side in zip(header, columns, align, strict=True)
    ]
    if align[-1] == "l":
        # Nothing follows it: one long remark must not make every line as long.
        aligned[-1] = [*aligned[-1][:2], *columns[-1]]
    # An unnamed column belongs to the one before it: one blank between them instead of two.
    joints = ["", *("  " if name else " " for name in header[1:])]
    return [
        "".join(joint + cell for joint, cell in zip(joints, line, strict=True)).rstrip()
        for line in zip(*aligned, strict=True)
    ]


def _column(name: str, cells: Sequence[str], side: str) -> list[str]:
    """The name, a rule and the cells, all of one width."""
    if side == ".":
        cells = _on_point(cells)
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


def branch(kind: str, path: str, depth: int) -> str:
    """A module in the tree: its type and the last part of its path, indented by its depth."""
    name = path.rpartition(".")[2]
    return "  " * depth + (f"{kind} ({name})" if name else kind)


def bar(value: float, whole: float, width: int) -> str:
    """A bar of at most ``width`` characters, to an eighth of one."""
    eighths = round(8 * width * min(max(value / whole, 0), 1)) if whole else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
