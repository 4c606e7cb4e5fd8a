"""Reports as documents: fields and tables, for text and Markdown.

Each module here makes the documents of some kinds of records, and is loaded when one is asked for.
"""

from __future__ import annotations

import importlib

from layerbench.records.workload import Frozen
from layerbench.reporters.documents.shared import PHASE_NAMES, Document, Table

__all__ = ["PHASE_NAMES", "Document", "Table", "document"]

# The module here that has the document of a record, by the value of the record's field ``record``.
_MODULES = {
    "training run": "training",
    "training forecast": "training",
    "sweep": "training",
    "detection estimates": "detection",
    "detection run": "detection",
}


def document(record: Frozen) -> Document:
    """The document of a record.

    Raises:
        TypeError: there is none of such a record.
    """
    kind = getattr(record, "record", None)
    if kind not in _MODULES:
        raise TypeError(f"no document for a {type(record).__name__}")
    module = importlib.import_module(f"{__name__}.{_MODULES[kind]}")
    found: Document = module.document(record)
    return found
