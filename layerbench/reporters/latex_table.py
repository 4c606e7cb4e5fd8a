r"""Tables for a paper: LaTeX with ``\usepackage{booktabs}``, a caption and a label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerbench.errors import UsageError
from layerbench.text import visible

_LABEL = re.compile(r"[\w:.+/-]{1,100}", re.ASCII)
_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the beginning of a row it would be an option of the line before
}


def escaped(text: str) -> str:
    """Anybody's text, with nothing in it that LaTeX reads as a command."""
    return "".join(_ESCAPES.get(letter, letter) for letter in visible(text))


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
    """A floating table, without a final newline.

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
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        f"    {_line(list(map(escaped, header)))}",
        r"    \midrule",
        *(f"    {_line(row)}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"
