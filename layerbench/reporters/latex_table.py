r"""Tables for a paper: LaTeX with a caption and a label.

A wide table is made as wide as a line, a long one goes on over pages. They need the packages
booktabs, graphicx and longtable, which each distribution of LaTeX has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from layerbench.errors import UsageError
from layerbench.text import visible

MOST_ROWS = 40
"""Of a table that stands on one page; a longer one would not be printed at all."""

_LABEL = re.compile(r"[\w:.+/-]{1,100}", re.ASCII)
_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "^": r"\textasciicircum{}",
    "~": r"$\sim$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the beginning of a row these two would be read as part of the end of the line before.
    "[": "{[}",
    "*": "{*}",
    # What a package for a language may have made a command.
    '"': r"{\char34}",
}
# Two of these in a row would become another sign, as a dash or a quotation mark.
_LIGATURES = re.compile(r"([-,'`?!])(?=[-,'`])")
# Beyond these letters pdfLaTeX knows only some signs.
_LATIN = "\u017f"
_KNOWN_SIGNS = frozenset("\u2013\u2014\u2018\u2019\u201c\u201d†‡•…→←↑↓€™")


def escaped(text: str) -> str:
    """Anybody's text, with nothing in it that LaTeX reads as a command."""
    safe = "".join(_ESCAPES.get(letter, letter) for letter in visible(text))
    return _LIGATURES.sub(r"\1{}", safe)


def bold(cell: str) -> str:
    """A cell of LaTeX that stands out."""
    return rf"\textbf{{{cell}}}"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    caption: str,
    label: str,
) -> str:
    """A floating table, or one over pages, without a final newline.

    Args:
        header: plain text.
        rows: cells of LaTeX.
        align: one letter a column, ``l`` or ``r``.
        caption: plain text.
        label: what a paper refers to it by.

    Raises:
        UsageError: a label that LaTeX would not read.
    """
    if not _LABEL.fullmatch(label):
        raise UsageError(f"a label is of letters, digits and : . + / - _, got {label!r}")
    made = _over_pages if len(rows) > MOST_ROWS else _floating
    heads = [_head(name, side) for name, side in zip(header, align, strict=True)]
    lines = made(_line(heads), [_line(row) for row in rows], align, escaped(caption), label)
    text = "\n".join(lines)
    return "\n".join([*_beyond_latin(text), text])


def _floating(
    head: str, rows: Sequence[str], align: str, caption: str, label: str
) -> Iterator[str]:
    """On one page, made smaller where it is wider than a line."""
    yield r"% needs \usepackage{booktabs,graphicx}"
    yield r"\begin{table}"
    yield r"  \centering"
    # Usual classes leave no room below a caption, which is meant to stand below.
    yield r"  \setlength{\belowcaptionskip}{\abovecaptionskip}"
    yield rf"  \caption{{{caption}}}"
    yield rf"  \label{{{label}}}"
    yield r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"  \begin{{tabular}}{{{align}}}"
    yield r"    \toprule"
    yield f"    {head}"
    yield r"    \midrule"
    yield from (f"    {row}" for row in rows)
    yield r"    \bottomrule"
    yield r"  \end{tabular}}"
    yield r"\end{table}"


def _over_pages(
    head: str, rows: Sequence[str], align: str, caption: str, label: str
) -> Iterator[str]:
    """Over as many pages as it takes, its head on each; in small letters, as nothing shrinks it."""
    yield r"% needs \usepackage{booktabs,longtable} and pages of one column"
    yield r"\begingroup"
    yield r"  \scriptsize"
    yield r"  \setlength{\tabcolsep}{3pt}"
    # In the middle also where it is wider than a line.
    yield r"  \setlength{\LTleft}{0pt plus 1fill minus 1fill}"
    yield r"  \setlength{\LTright}{\LTleft}"
    yield r"  \setlength{\LTcapwidth}{\linewidth}"
    yield rf"  \begin{{longtable}}{{{align}}}"
    yield rf"    \caption{{{caption}}}\label{{{label}}}\\"
    yield r"    \toprule"
    yield f"    {head}"
    yield r"    \midrule"
    yield r"    \endfirsthead"
    yield r"    \toprule"
    yield f"    {head}"
    yield r"    \midrule"
    yield r"    \endhead"
    yield r"    \bottomrule"
    yield r"    \endfoot"
    yield from (f"    {row}" for row in rows)
    yield r"  \end{longtable}"
    yield r"\endgroup"


def _head(name: str, side: str) -> str:
    """The heading of a column; what is said of a place stands below the place."""
    place, colon, what = name.rpartition(": ")
    if not colon:
        return escaped(name)
    return rf"\shortstack[{side}]{{{escaped(place)}\\{escaped(what)}}}"


def _beyond_latin(text: str) -> Iterator[str]:
    """A word on letters that stop pdfLaTeX."""
    if any(letter > _LATIN and letter not in _KNOWN_SIGNS for letter in text):
        yield "% has letters that stop pdfLaTeX: take LuaLaTeX and a font that has them"


def _line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"
