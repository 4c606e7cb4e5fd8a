"""Progress bars: on a terminal, or in a notebook.

Bars are redrawn when a step ends, between forwards, about a hundred times a phase. No thread draws
them, since it would disturb a forward.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from layerbench.environment import notebook
from layerbench.profilers.progress import Progress, Silent
from layerbench.text import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Drawing
    from rich.progress import TaskID

DRAWINGS = 100


@contextmanager
def heard(progress: Progress | bool | None) -> Iterator[Progress]:
    """Who hears of the steps while the block runs.

    Args:
        progress: ``True`` for a bar, in a notebook or on a terminal; of what goes into a file or a
            pipe there is none. ``None`` and ``False`` for nobody, else whoever it is.
    """
    if progress is not True:
        yield progress or Silent()
    elif notebook.is_running():
        with _in_notebook() as bar:
            yield bar
    elif sys.stderr.isatty():
        with on_terminal("") as bar:
            yield bar
    else:
        yield Silent()


# --- a terminal ----------------------------------------------------------------------------


class TerminalBar:
    """Forwards steps to one rich bar a phase."""

    def __init__(self, drawing: Drawing, title: str) -> None:
        self._drawing = drawing
        self._title = title
        self._tasks: dict[str, TaskID] = {}

    def step(self, phase: str, done: int, total: int) -> None:
        """Move the phase's bar."""
        if phase not in self._tasks:
            self._finish_earlier()
            title = visible(f"{self._title}: {phase}" if self._title else phase)
            self._tasks[phase] = self._drawing.add_task(title, total=total)
        self._drawing.update(self._tasks[phase], completed=done, total=total)
        if is_drawn(done, total):
            self._drawing.refresh()

    def _finish_earlier(self) -> None:
        for task in self._drawing.tasks:
            self._drawing.update(task.id, completed=task.total)


def is_drawn(done: int, total: int) -> bool:
    """Whether a bar is redrawn after this step."""
    return done % max(1, total // DRAWINGS) == 0 or done == total


@contextmanager
def on_terminal(title: str) -> Iterator[TerminalBar]:
    """A bar with the time left, on standard error, while the block runs.

    Args:
        title: stands before the name of each phase.
    """
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        # What goes into a file or a pipe stays there.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    ) as drawing:
        yield TerminalBar(drawing, title)


# --- a notebook ----------------------------------------------------------------------------

_BAR = (
    '<progress value="{done}" max="{total}" aria-label="{phase}" style="vertical-align:middle">'
    "</progress> {phase} {done}/{total}"
)


class NotebookBar:
    """One bar in the output of a cell; it shows the phase that goes on.

    It is the browser's own element and needs no widgets, which a notebook may lack.
    """

    def __init__(self) -> None:
        from IPython.display import HTML, DisplayHandle

        self._markup: Any = HTML
        self._handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._there = False

    def step(self, phase: str, done: int, total: int) -> None:
        """Move the bar."""
        if is_drawn(done, total):
            self._draw(_BAR.format(phase=escape(visible(phase)), done=done, total=max(1, total)))

    def close(self) -> None:
        """Take the bar away."""
        if self._there:
            self._draw("")

    def _draw(self, markup: str) -> None:
        draw = self._handle.update if self._there else self._handle.display
        self._there = True
        draw(self._markup(markup))


@contextmanager
def _in_notebook() -> Iterator[NotebookBar]:
    bar = NotebookBar()
    try:
        yield bar
    finally:
        bar.close()
