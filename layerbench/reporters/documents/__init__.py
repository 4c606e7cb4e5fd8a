"""Records as documents, of which reports in text, Markdown and HTML are made.

Each module here has the document of the records of one module of `layerbench.records`, is called
as that one is, and is loaded when such a record is to be shown. Another package offers the document
of its own kind of record as ``layerbench.documents``: a module with ``RECORD``, the class, and
``document``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from layerbench.errors import UsageError
from layerbench.records.workload import Frozen
from layerbench.registry import offered
from layerbench.reporters.documents import layout

_RECORDS = "layerbench.records."


def document(record: Frozen) -> layout.Document:
    """The document of a record.

    Raises:
        UsageError: there is none of such a record.
    """
    module = _module(type(record))
    if module is None:
        kind = getattr(record, "record", type(record).__name__)
        raise UsageError(f"there is no report of {kind} records: take json")
    made: layout.Document = module.document(record)
    return made


def _module(kind: type[Frozen]) -> Any:  # noqa: ANN401 - a module, or what stands for one
    """What makes documents of such records; ``None`` where nothing does."""
    home = kind.__module__
    if not home.startswith(_RECORDS):
        modules = offered("layerbench.documents")
        return next((module for module in modules if module.RECORD is kind), None)
    name = f"{__name__}.{home.removeprefix(_RECORDS)}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None
