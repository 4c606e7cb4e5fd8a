"""The contents of reports: documents, for text, Markdown and HTML, and rows.

Each module here has the ``document`` of the records of one module of `layerbench.records`, and the
``rows`` for spreadsheets; it is called as that one is, and is loaded when such a record is shown.
Another package offers those of its own kind of record as ``layerbench.documents``: a module with
``RECORD``, the class, ``document``, and ``rows`` if it likes. A ``document`` with a second
parameter, ``view``, shows what a `View` says.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from layerbench.errors import UsageError
from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.registry import offered
from layerbench.reporters.documents import cells, layout

Shown = TypeVar("Shown")

_RECORDS = "layerbench.records."


def document(record: Frozen, view: View = USUAL) -> layout.Document:
    """The document of a record.

    Args:
        record: of any kind.
        view: what it shows, if its document can be seen in several ways.

    Raises:
        UsageError: there is none of such a record.
    """
    made: layout.Document = with_view(_maker(record, "document", "report", "json"), record, view)
    return made


def with_view(show: Callable[..., Shown], record: Frozen, view: View) -> Shown:
    """What a function makes of a record; of a view, too, if it has a parameter of that name."""
    if "view" in inspect.signature(show).parameters:
        return show(record, view=view)
    return show(record)


def rows(record: Frozen) -> cells.Rows:
    """The rows of a record.

    Raises:
        UsageError: there are none of such a record.
    """
    made: cells.Rows = _maker(record, "rows", "CSV", "txt, md, html or json")(record)
    return made


def _maker(record: Frozen, name: str, what: str, instead: str) -> Any:  # noqa: ANN401 - a function
    """The function of this name for such records."""
    module: Any = None
    home = type(record).__module__
    if not home.startswith(_RECORDS):
        others = offered("layerbench.documents")
        module = next((other for other in others if other.RECORD is type(record)), None)
    elif importlib.util.find_spec(ours := f"{__name__}.{home.removeprefix(_RECORDS)}"):
        module = importlib.import_module(ours)
    if not hasattr(module, name):
        kind = getattr(record, "record", type(record).__name__)
        raise UsageError(f"there is no {what} of {kind} records: take {instead}")
    return getattr(module, name)
