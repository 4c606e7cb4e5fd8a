"""The contents of reports: documents, for text, Markdown and HTML, and rows.

Each module here has the ``document`` of the records of one module of `layerbench.records`, and the
``rows`` for spreadsheets; it is called as that one is, and is loaded when such a record is shown.
Another package offers those of its own kind of record as ``layerbench.documents``: a module with
``RECORD``, the class, ``document``, and ``rows`` if it likes.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from layerbench.errors import UsageError
from layerbench.records.workload import Frozen
from layerbench.registry import offered
from layerbench.reporters.documents import cells, layout

_RECORDS = "layerbench.records."


def document(record: Frozen) -> layout.Document:
    """The document of a record.

    Raises:
        UsageError: there is none of such a record.
    """
    made: layout.Document = _maker(record, "document", "report", "json")(record)
    return made


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
