"""The elements of documents: sections of fields, texts, lists and tables.

A part that only some formats show says so. Text and pages show the full report, Markdown is to be
pasted and leaves out what has a line for every layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

EVERYWHERE = frozenset({"txt", "md", "html"})
FULL = frozenset({"txt", "html"})
BRIEF = frozenset({"md"})
COMMAND = "Command"
"""The name of the field with the command line: it is there to be copied, and never wrapped."""


@dataclass(frozen=True)
class Part:
    """A part of a document.

    Attributes:
        formats: names of the formats that show it.
    """

    formats: frozenset[str] = field(default=EVERYWHERE, kw_only=True)


@dataclass(frozen=True)
class Fields(Part):
    """Names and texts; one without text is left out."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Text(Part):
    """A paragraph.

    Attributes:
        strong: whether it stands out: it says why the figures mean nothing.
        wrapped: whether lines of text end before the margin; where not, it is found with grep.
        indented: whether it is further in than the title of its section; a legend is not.
    """

    text: str
    strong: bool = False
    wrapped: bool = True
    indented: bool = True


@dataclass(frozen=True)
class Lines(Part):
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table(Part):
    """A table.

    Attributes:
        header: names of the columns; without any, the first cell of a row names the others.
        rows: cells, as many in each row as ``align`` has letters.
        align: a letter a column: ``l`` left, ``c`` left and a name in code, ``r`` right, ``.`` on
            the decimal point.
        omitted_first: columns that a narrow screen, or a report that has no room for all, goes
            without, in this order.
        cut: the column whose cells a narrow screen cuts at their beginning.
        fewest: rows that stay where a screen is too low for all.
        names: columns at the beginning that say what a row is of. A report repeats them where it
            continues a table below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    omitted_first: tuple[int, ...] = ()
    cut: int | None = None
    fewest: int | None = None
    names: int = 1


@dataclass(frozen=True)
class Section(Part):
    """Parts that belong together; left out where all of them are empty."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """A report before it has a format.

    Attributes:
        title: of the whole, with the answer where a few words can say it.
        head: what stands below the title and with it makes the first screen: what voids or weakens
            the figures, the answer, and what most readers look for.
        sections: in order.
    """

    title: str
    head: Sequence[Part]
    sections: Sequence[Section]


def of_format(parts: Iterable[Part], format: str) -> list[Part]:
    """Those of the parts that a format shows: neither others' nor empty ones."""
    return [part for part in parts if format in part.formats and _content(part, format)]


def _content(part: Part, format: str) -> Sequence[object]:
    match part:
        case Section():
            return of_format(part.parts, format)
        case Fields():
            return [text for _, text in part.items if text]
        case Text():
            return part.text
        case Lines():
            return part.lines
        case Table():
            return part.rows
    raise TypeError(f"a document has no {type(part).__name__}")


MARK = " "
"""The name of an unnamed column of marks, where the one for remarks has the name ``""``."""


def table(
    title: str,
    rows: Sequence[Mapping[str, str]],
    align: str,
    *legend: Text,
    formats: frozenset[str] = EVERYWHERE,
    omitted_first: Sequence[str] = (),
    names: int = 1,
) -> Section:
    """A table with a title and remarks below it.

    Args:
        title: above it.
        rows: cells by the name of the column, in the same order in each row.
        align: a letter a column, as in a `Table`.
        legend: below the table.
        formats: those that show it.
        omitted_first: names of columns, as in a `Table`.
        names: as in a `Table`.
    """
    if not rows:
        return Section(title, [])
    columns = [*rows[0]]
    omitted = tuple(columns.index(name) for name in omitted_first if name in columns)
    cells = [[*row.values()] for row in rows]
    header = [name.strip() for name in columns]
    made = Table(header, cells, align, omitted_first=omitted, names=names)
    return Section(title, [made, *legend], formats=formats)


def what_ran(items: Sequence[tuple[str, str]]) -> Section:
    """What ran where, which a report ends with."""
    return Section("What ran", [Fields(items)])


def listed(title: str, lines: Sequence[str]) -> Section:
    """A list with a title."""
    return Section(title, [Lines(lines)])
