"""The first screen of a report: what ran, what to think of it, and the answer."""

from __future__ import annotations

import shutil

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters import txt
from layerbench.reporters.documents import document
from layerbench.text import shown

NAME = "screen"
SUFFIX = ".screen.txt"
NARROWEST, WIDEST = 80, 120


def render(record: Frozen, view: View = USUAL) -> str:
    """At most 24 lines of the view's width, of a record of any kind."""
    return "\n".join(txt.head(document(shown(record), view), view)) + "\n"


def columns() -> int:
    """The terminal's width, as far as a report can have it."""
    wide = shutil.get_terminal_size((USUAL.width, 0)).columns
    return min(max(wide, NARROWEST), WIDEST)
