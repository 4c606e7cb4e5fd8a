"""Records with names that are longer than any that there is."""

from __future__ import annotations

import layerbench
from layerbench.text import shown

_NAMES = ("path", "type", "owner", "model", "model_type", "data")


def with_long_names(record: layerbench.Record) -> layerbench.Record:
    """The record with paths, types, models and devices of a length that none has."""
    names: set[str] = set()

    def collect(part: object) -> None:
        if isinstance(part, dict):
            names.update(text for name in _NAMES if isinstance(text := part.get(name), str))
            if isinstance(part.get("device"), dict):
                names.add(part["device"]["name"])
        for inner in part.values() if isinstance(part, dict) else part:
            if isinstance(inner, dict | list):
                collect(inner)

    collect(record.model_dump(mode="json"))
    names.discard("")
    return shown(record, lambda text: _longer(text) if text in names else text)


def _longer(text: str) -> str:
    return ".".join(part + "_and_so_on" * 7 for part in text.split("."))
