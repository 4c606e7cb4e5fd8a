"""JSON to compute with: reads back as the very same record, and shows changes line by line."""

from __future__ import annotations

import json
from typing import Any

from layerbench.records.workload import Frozen

NAME = "json"
SUFFIX = ".json"


def render(record: Frozen) -> str:
    """One line for every field, and for every row.

    Raises:
        ValueError: a value is not finite, which JSON cannot say.
    """
    return document(record.model_dump(mode="json", by_alias=True))


def document(content: Any) -> str:  # noqa: ANN401 - any JSON value
    """JSON text of plain values, laid out as records are."""
    return _lines(content, "") + "\n"


def _lines(value: Any, indent: str) -> str:  # noqa: ANN401 - any JSON value
    """Objects and lists of objects spread over lines, everything else on one."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{inner}{_line(key)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(inner + _line(item) for item in value) + f"\n{indent}]"
    return _line(value)


def _line(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
