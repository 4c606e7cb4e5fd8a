"""What the verbs' options have in common: reading them, or saying what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerbench.errors import UsageError


def formats(text: str | None, out: Path | None) -> list[str]:
    """The formats asked for; the text and the record where a folder is written."""
    text = text if text is not None else ("txt" if out is None else "txt,json")
    return [name.strip() for name in text.split(",") if name.strip()]


def at_least(option: str, value: int, least: int) -> int:
    """The value, or a `UsageError`."""
    if value < least:
        raise UsageError(f"{option} must be at least {least}, got {value}")
    return value


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:  # noqa: ANN401 - a Literal
    """The value if it is one of those known, or a `UsageError`."""
    if value not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, got {value!r}")
    return value


def truth(option: str, value: str) -> bool:
    """A yes or no in one of its spellings, or a `UsageError`."""
    truths = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in truths:
        raise UsageError(f"{option} takes True or False, got {value!r}")
    return truths[value.lower()]
