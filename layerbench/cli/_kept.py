"""Reports of long work, written after each part of it: what ends early has what was done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from layerbench.cli import _options
from layerbench.errors import OutputError
from layerbench.records.view import View

if TYPE_CHECKING:
    from layerbench.store.paths import Placed


class Kept:
    """Writes a record that grows.

    Args:
        names: formats.
        out: the folder; ``None`` writes nothing and prints the whole record at the end.
        view: what the reports show.
    """

    def __init__(self, names: list[str], out: Path | None, view: View) -> None:
        self._names = names
        self._out = out
        self._view = view
        self._written: set[Path] = set()

    def so_far(self, record: Placed) -> None:
        """Write what there is. Where that fails the work goes on: its end may find more room."""
        if self._out is None:
            return
        try:
            places = _options.written(record, self._names, self._out, self._view)
        except OutputError as error:
            typer.echo(f"what was measured so far is not kept: {error}", err=True)
        else:
            self._written.update(places)

    def deliver(self, record: Placed) -> None:
        """Print or write the whole; no part of it is left under another name."""
        places = _options.deliver(record, self._names, self._out, self._view)
        for left in self._written.difference(places):
            left.unlink(missing_ok=True)
