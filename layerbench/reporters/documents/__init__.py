"""The contents of reports: documents, for text, Markdown and HTML, and rows.

Each module here has the ``document`` of the records of one module of `layerbench.records`, and the
``rows`` for spreadsheets, and its ``cautions``: what voids or weakens the figures, the gravest
first. It is called as that one is, and is loaded when such a record is shown.
Another package offers those of its own kind of record as ``layerbench.documents``: a module with
``RECORD``, the class, ``document``, and ``rows`` and ``cautions`` if it likes. A ``document`` with
a second parameter, ``view``, shows what a `View` says.
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


def rows(record: Frozen, view: View = USUAL) -> cells.Rows:
    """The rows of a record, each with what to think of its figures.

    Args:
        record: of any kind.
        view: whether there are rows of kernels, too; nothing else of it.

    Raises:
        UsageError: there are none of such a record.
    """
    maker = _maker(record, "rows", "CSV", "txt, md, html or json")
    made: cells.Rows = with_view(maker, record, view)
    common, rows = made
    if hasattr(_module(record), "cautions"):
        common = {**common, "cautions": "; ".join(cautions(record)) or None}
    return common, rows


def cautions(record: Frozen) -> list[str]:
    """What voids or weakens the figures of a record, the gravest first."""
    module = _module(record)
    return [*module.cautions(record)] if hasattr(module, "cautions") else []


def _maker(record: Frozen, name: str, what: str, instead: str) -> Any:  # noqa: ANN401 - a function
    """The function of this name for such records."""
    module = _module(record)
    if not hasattr(module, name):
        kind = getattr(record, "record", type(record).__name__)
        raise UsageError(f"there is no {what} of {kind} records: take {instead}")
    return getattr(module, name)


def _module(record: Frozen) -> Any:  # noqa: ANN401 - a module, ours or another package's
    """The module that shows such records; ``None`` if there is none."""
    home = type(record).__module__
    if not home.startswith(_RECORDS):
        others = offered("layerbench.documents")
        return next((other for other in others if other.RECORD is type(record)), None)
    ours = f"{__name__}.{home.removeprefix(_RECORDS)}"
    return importlib.import_module(ours) if importlib.util.find_spec(ours) else None
