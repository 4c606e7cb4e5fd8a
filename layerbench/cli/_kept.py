"""Reports of long work, written after each part of it: what ends early has what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import typer

from layerbench.cli import _options
from layerbench.errors import OutputError
from layerbench.records.view import USUAL, View

if TYPE_CHECKING:
    from layerbench.records.workload import Frozen

Made = TypeVar("Made", bound="Frozen")


class Kept(Generic[Made]):
    """Writes a record that grows.

    Args:
        names: formats.
        place: gives a record's path, without an ending; ``None`` writes nothing and prints the
            whole record at the end.
        view: what the reports show.
    """

    def __init__(
        self, names: list[str], place: Callable[[Made], Path] | None, view: View = USUAL
    ) -> None:
        self._names = names
        self._place = place
        self._view = view
        self._written: set[Path] = set()

    def so_far(self, record: Made) -> None:
        """Write what there is. Where that fails the work goes on: its end may find more room."""
        if self._place is None:
            return
        try:
            places = _options.written(record, self._names, self._place(record), self._view)
        except OutputError as error:
            typer.echo(f"what was measured so far is not kept: {error}", err=True)
        else:
            self._written.update(places)

    def deliver(self, record: Made) -> None:
        """Print or write the whole; no part of it is left under another name."""
        path = None if self._place is None else self._place(record)
        places = _options.deliver(record, self._names, path, self._view)
        for left in self._written.difference(places):
            left.unlink(missing_ok=True)
