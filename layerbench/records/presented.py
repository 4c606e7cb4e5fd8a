"""How a record shows and saves itself, asked of the floors above when somebody wants to see it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_PRESENTER = "layerbench.reporters.presenting"


class Presented:
    """The methods of every record.

    Records lie below whatever renders them and import none of it, so that a reader of records
    does not wait for reports. The presenter is loaded by its name at the first call.
    """

    def presented(self) -> Any:  # noqa: ANN401 - a record, whose class derives from this one
        """The record that is shown; of a measurement that goes on, what it has so far."""
        return self

    def __repr__(self) -> str:
        return str(_presenter().brief(self))

    def __str__(self) -> str:
        return str(_presenter().screen(self))

    def _repr_html_(self) -> str:
        return str(_presenter().frame(self))

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def to_html(self) -> str:
        """The page: one HTML text that loads nothing."""
        return str(_presenter().rendered(self, "html"))

    def to_markdown(self) -> str:
        """GitHub Markdown, to paste into an issue."""
        return str(_presenter().rendered(self, "md"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values as in the JSON file; the class's ``model_validate`` takes them back."""
        values: dict[str, Any] = _presenter().plain(self)
        return values

    def to_dataframe(self) -> pd.DataFrame:
        """A row for the whole and for every layer, with the columns of csv; needs pandas.

        Raises:
            UsageError: there is no pandas, or there are no rows of such a record.
        """
        return _presenter().dataframe(self)

    def save(self, path: str | Path) -> Path:
        """Write the record whole, in the format that the path's ending says.

        Args:
            path: ends as a format does: ``.json``, ``.txt``, ``.md``, ``.html``, ``.csv``, ...;
                without an ending ``.json`` is added.

        Returns:
            where it lies. `layerbench.read` gives a ``.json`` back.

        Raises:
            UsageError: no format has this ending, or not for such a record.
            OutputError: it cannot be written.
        """
        written: Path = _presenter().save(self, path)
        return written

    def top(self, n: int = 10, sort: str | None = None, type: str | None = None) -> list[Any]:
        """The slowest or largest layers, the first one first.

        Args:
            n: how many.
            sort: ``self``, ``time``, ``flops``, ``params`` or ``memory``; ``None`` for what the
                record is about. A record without times takes no ``self`` or ``time``.
            type: class name of the layers; ``None`` takes all.

        Returns:
            each a `layerbench.analysis.portions.Large`; of a profile it is a
            `layerbench.analysis.hotspots.Hotspot`, which knows more.

        Raises:
            UsageError: the record has no layers, or does not know what they shall be sorted by.
        """
        rows: list[Any] = _presenter().top(self, n, sort, type)
        return rows

    def by_type(self) -> list[Any]:
        """What the layers of each type take together, the largest first.

        Returns:
            each a `layerbench.analysis.portions.Portion`.

        Raises:
            UsageError: the record has no layers.
        """
        groups: list[Any] = _presenter().by_type(self)
        return groups

    def show(self, **view: Any) -> None:  # noqa: ANN401 - checked by `View`
        """Print the first screen; in a notebook, display the page.

        Args:
            view: fields of `layerbench.records.view.View`, such as ``full=True`` or
                ``sort="params"``: then a notebook, too, gets text.

        Raises:
            UsageError: there is no such field, or no such value.
        """
        _presenter().show(self, view)


def _presenter() -> Any:  # noqa: ANN401 - a module of a floor above
    return importlib.import_module(_PRESENTER)
