"""Text from outside as it can be shown: control characters are written out.

Names come from models, files and other machines. An escape sequence could clear a terminal or hide
text. A bidirectional mark reverses a line, and a line separator adds one.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part")

# Types without text, which most of a record has.
_NO_TEXT = frozenset({int, float, bool, type(None)})


def visible(text: str) -> str:
    r"""The text with every character that does not print written as Python writes it.

    These are Unicode's control, format and separator characters but for the space, those that are
    not assigned, and halves of surrogate pairs.

    Example:
        >>> print(visible("red \x1b[31m"))
        red \x1b[31m
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def one_line(text: object, most: int | None = None) -> str:
    """The text on one line, `visible`, and cut after ``most`` characters."""
    words = " ".join(str(text).split())
    return visible(words if most is None else beginning(words, most))


def encodable(text: str) -> str:
    r"""The text as it can be written as UTF-8: half of a surrogate pair becomes ``\udc80``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """Both ends of a longer text, and a hash that distinguishes it from others."""
    if len(text) <= most:
        return text
    mark = hashlib.sha256(encodable(text).encode()).hexdigest()[:8]
    end = (most - len(mark) - 2) // 2
    return f"{text[:end]}…{mark}…{text[-end:]}"


def beginning(text: str, most: int) -> str:
    """The beginning of a longer text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ending(text: str, most: int) -> str:
    """The end of a longer text: of a path it says what it is within what is above it."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def shown(part: Part, written: Callable[[str], str] = visible) -> Part:
    """A record, or a part of one, with all its text made visible.

    Args:
        part: returned itself if nothing changes.
        written: applied to each text.
    """
    result: Part = _shown(part, written)
    return result


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _shown(part: Any, written: Callable[[str], str]) -> Any:  # noqa: ANN401 - whatever a record holds
    kind = type(part)
    # A tuple without any is a shape, among others.
    if kind in _NO_TEXT or (kind is tuple and _NO_TEXT.issuperset(map(type, part))):
        return part
    if kind is str:
        return written(part)
    if kind is tuple:
        parts = tuple(_shown(item, written) for item in part)
        return part if all(map(operator.is_, parts, part)) else parts
    if kind is dict:
        entries = {_shown(name, written): _shown(value, written) for name, value in part.items()}
        return part if entries == part else entries
    if not hasattr(part, "model_copy"):
        return part
    changed = {}
    for name, value in part.__dict__.items():
        # Checked here too, since most of what a record holds are numbers.
        new = value if type(value) in _NO_TEXT else _shown(value, written)
        if new is not value:
            changed[name] = new
    return part.model_copy(update=changed) if changed else part
