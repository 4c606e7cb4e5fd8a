"""A progress bar with the time left, on stderr, only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from layerbench.progress import Progress as Listener
from layerbench.progress import Silent

DRAWINGS = 100


class _Bar:
    """Forwards steps to one rich bar a phase.

    A redraw in the middle of a forward would disturb it, so the bar is drawn here, between
    forwards, about a hundred times a phase, and by no thread of its own.
    """

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._tasks: dict[str, TaskID] = {}

    def step(self, phase: str, done: int, total: int) -> None:
        """Move the phase's bar."""
        if phase not in self._tasks:
            self._finish_earlier()
            self._tasks[phase] = self._progress.add_task(f"{self._title}: {phase}", total=total)
        self._progress.update(self._tasks[phase], completed=done, total=total)
        if done % max(1, total // DRAWINGS) == 0:
            self._progress.refresh()

    def _finish_earlier(self) -> None:
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total)


@contextmanager
def shown(title: str, quiet: bool) -> Iterator[Listener]:
    """Show progress while the block runs; nothing with ``quiet`` or where no terminal listens."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        # What goes into a file or a pipe stays there.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    ) as progress:
        yield _Bar(progress, title)
