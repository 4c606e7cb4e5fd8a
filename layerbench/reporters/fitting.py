"""Tables as text, as wide as there is room.

On a first screen a table leaves columns out, as it says itself, and cuts long names. In a report,
which has no page to be looked at beside it, remarks go on below their row before a column is left
out, and a table that says nothing of its columns is continued below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from layerbench.reporters.documents import layout
from layerbench.reporters.formatting import WIDEST
from layerbench.text import ending

# Of the longest cell, what a cut leaves at least: the rest of a path still says where it is.
_LEAST_LEFT = 2 / 3
_SHORTEST = 12
# In a report a name keeps such a part of the width before a column is left out, and so much
# afterwards, if figures have room then; remarks have so much room beside the figures.
_OF_A_REPORT = 3
_SHORTEST_IN_REPORT = 24
_REMARKS = 24
# On a first screen a cell of text other than the path takes so much of the width at most.
_OF_A_SCREEN = 3
_BELOW = "    "
# The columns in which a name may stand that is not marked as a path.
_OF_NAMES = 2


def fits(lines: Sequence[str], width: int) -> bool:
    """Whether no line is longer."""
    return _over(lines, width) <= 0


def on_screen(part: layout.Table, width: int) -> list[str]:
    """The lines of a table on a first screen: the columns that there is room for, long cells cut.

    Args:
        part: with a header.
        width: of the longest line.
    """
    if not fits(_plain(part), width):
        part = _fitted(_with_shorter_text(part, width // _OF_A_SCREEN), width)
    return [middle(line, width) for line in _plain(part)]


def in_report(part: layout.Table, width: int) -> list[str]:
    """The lines of a table in a report: all columns, if need be some below the others.

    Args:
        part: with a header.
        width: of the longest line.
    """
    lines = _plain(part)
    if fits(lines, width):
        return lines
    lines = list(_with_remarks_below(part, width))
    return [middle(line, width) for line in lines]


def _over(lines: Sequence[str], width: int) -> int:
    return max(map(len, lines), default=0) - width


def _plain(part: layout.Table) -> list[str]:
    return aligned(part.header, part.rows, part.align.replace("c", "l"))


# --- a first screen ------------------------------------------------------------------------


def _fitted(part: layout.Table, width: int) -> layout.Table:
    """The table without the columns that there is no room for, and with shorter paths."""
    kept = [*range(len(part.header))]
    for column in (None, *part.omitted_first):
        kept = [at for at in kept if at != column]
        last = column == (part.omitted_first or (None,))[-1]
        over = _over(_plain(_columns(part, kept)), width)
        longest = _longest(part, part.cut)
        if over <= 0:
            return _columns(part, kept)
        if longest - over >= max(longest * _LEAST_LEFT, _SHORTEST) or last:
            return _columns(_cut(part, part.cut, max(longest - over, _SHORTEST)), kept)
    raise AssertionError(part)


def _with_shorter_text(part: layout.Table, most: int) -> layout.Table:
    """Names shortened that no model usually has; the path is left to `_fitted`."""
    for at, side in enumerate(part.align):
        if side in "lc" and at != part.cut:
            part = _cut(part, at, most)
    return part


# --- a report ------------------------------------------------------------------------------


def _with_remarks_below(part: layout.Table, width: int) -> Iterator[str]:
    """Remarks in lines of their own, and the rest as `_narrowed` makes it."""
    own, title, remarks = _apart(part, width)
    # A word alone, such as a verdict or a bar, stays beside its figures.
    alone = not any(" " in remark for remark in remarks)
    room = min(max(map(len, remarks), default=0), _REMARKS) if alone else 0
    tables, left_out = _narrowed(own, width - (room + 1 if room else 0))
    first, *others = map(_plain, tables)
    start = max(map(len, first)) + (2 if title else 1)
    rule = "-" * min(max(map(len, (title, *remarks))), width - start) if title else ""
    for line, remark in zip(first, (title, rule, *remarks), strict=True):
        yield from _remarked(line, remark, start, width)
    for lines in others:
        yield ""
        yield from lines
    if left_out:
        yield from textwrap.wrap(f"Not shown, for want of room: {', '.join(left_out)}.", width)


def _apart(part: layout.Table, width: int) -> tuple[layout.Table, str, list[str]]:
    """The table without the remarks in its last column, the column's name, and the remarks.

    A column with a name has remarks only where there is room for it beside all others.
    """
    own = _columns(part, range(len(part.header) - 1))
    title = part.header[-1]
    beside = not title or fits(_plain(own), width - _REMARKS - 2) if own.header else False
    if part.align[-1] != "l" or not beside:
        return part, "", [""] * len(part.rows)
    omitted = tuple(at for at in part.omitted_first if at < len(own.header))
    return replace(own, omitted_first=omitted), title, [row[-1] for row in part.rows]


def _remarked(line: str, remark: str, start: int, width: int) -> Iterator[str]:
    """A row and its remark: beside it, or where that is too long in lines below."""
    if not remark:
        yield line
    elif start + len(remark) <= width:
        yield f"{line:<{start}}{remark}"
    elif width - start >= _REMARKS:
        beside, *below = textwrap.wrap(remark, width - start, break_on_hyphens=False)
        yield f"{line:<{start}}{beside}"
        yield from (" " * start + more for more in below)
    else:
        yield line
        indent = " " * min(len(line) - len(line.lstrip()), width // 2) + _BELOW
        yield from (
            indent + more
            for more in textwrap.wrap(remark, width - len(indent), break_on_hyphens=False)
        )


def _narrowed(part: layout.Table, width: int) -> tuple[list[layout.Table], list[str]]:
    """The table in as many as it takes, and the names of the columns that are left out."""
    part = _with_shorter_names(part, width, width // _OF_A_REPORT)
    kept = [*range(len(part.header))]
    left_out: list[str] = []
    for column in part.omitted_first:
        if fits(_plain(_columns(part, kept)), width):
            break
        kept.remove(column)
        left_out.append(part.header[column])
    pieces = [_columns(replace(part, omitted_first=()), kept)]
    if not part.omitted_first:
        pieces = list(_continued(part, width))
    for least in (_SHORTEST_IN_REPORT, _SHORTEST):
        pieces = [_with_shorter_names(piece, width, least) for piece in pieces]
    return pieces, left_out


def _with_shorter_names(part: layout.Table, width: int, least: int) -> layout.Table:
    """Names cut if the table is too wide, the longest column first, none to less than that."""
    done: set[int] = set()
    while not fits(_plain(part), width):
        names = {at: _longest(part, at) for at in _names(part) if at not in done}
        if not names:
            break
        at = max(names, key=lambda at: names[at])
        if names[at] > least:
            part = _cut(part, at, max(names[at] - _over(_plain(part), width), least))
        done.add(at)
    return part


def _names(part: layout.Table) -> list[int]:
    """Columns of types and paths, which may be cut; figures, also with words, may not."""
    return [
        at for at, side in enumerate(part.align) if side == "c" or (side == "l" and at < _OF_NAMES)
    ]


def _continued(part: layout.Table, width: int) -> Iterator[layout.Table]:
    """The table in pieces, each with the columns that name a row."""
    names = [*range(part.names)]
    piece = [*names]
    for group in _with_unnamed(part):
        longer = [*piece, *group]
        if len(piece) > len(names) and not fits(_plain(_columns(part, longer)), width):
            yield _columns(part, piece)
            longer = [*names, *group]
        piece = longer
    yield _columns(part, piece)


def _with_unnamed(part: layout.Table) -> list[list[int]]:
    """Columns that stay together: one without a name belongs to the one before it."""
    groups: list[list[int]] = []
    for at in range(part.names, len(part.header)):
        if groups and not part.header[at]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


# --- parts of tables -----------------------------------------------------------------------


def _longest(part: layout.Table, column: int | None) -> int:
    """Characters of the longest cell of a column that may be cut."""
    return max((len(row[column]) for row in part.rows), default=0) if column is not None else 0


def _columns(part: layout.Table, kept: Sequence[int]) -> layout.Table:
    return replace(
        part,
        header=[part.header[at] for at in kept],
        rows=[[row[at] for at in kept] for row in part.rows],
        align="".join(part.align[at] for at in kept),
    )


def _cut(part: layout.Table, column: int | None, length: int) -> layout.Table:
    if column is None:
        return part
    # The end of a path says what it is within what is above it.
    shorter = ending if part.align[column] == "c" else middle
    rows = [
        [shorter(cell, length) if at == column else cell for at, cell in enumerate(row)]
        for row in part.rows
    ]
    return replace(part, rows=rows)


def middle(text: str, length: int) -> str:
    """At most so many characters: both ends, and of an indentation half as many."""
    if len(text) <= length:
        return text
    indent = min(len(text) - len(text.lstrip(" ")), length // 2)
    text, length = text.lstrip(" "), length - indent
    if len(text) > length:
        last = (length - 1) // 2
        text = f"{text[: length - 1 - last]}…{text[len(text) - last :]}"
    return " " * indent + text


# --- alignment -----------------------------------------------------------------------------


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """The lines of a table.

    Args:
        header: column names.
        rows: cells, as many in each row as there are names.
        align: a letter a column: ``l`` left, ``r`` right, ``.`` on the decimal point.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    padded = [
        column(name, cells, side) for name, cells, side in zip(header, columns, align, strict=True)
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


def column(name: str, cells: Sequence[str], side: str) -> list[str]:
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
