"""Text of anybody's as it can be shown: what a terminal or an editor would obey is written out.

Names come from models, files and other machines. An escape sequence in one could clear a terminal
or hide what follows, a bidirectional mark turns a line around, a line separator adds a line.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part")

# What no text is in, and most of a record is.
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
    if most is not None and len(words) > most:
        words = f"{words[: most - 1]}…"
    return visible(words)


def encodable(text: str) -> str:
    r"""The text as it can be written as UTF-8: half of a surrogate pair becomes ``\udc80``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """Both ends of a text that has more characters, and a mark that tells it from others."""
    if len(text) <= most:
        return text
    mark = hashlib.sha256(encodable(text).encode()).hexdigest()[:8]
    end = (most - len(mark) - 2) // 2
    return f"{text[:end]}…{mark}…{text[-end:]}"


def shown(part: Part, written: Callable[[str], str] = visible) -> Part:
    """A record, or a part of one, with all its text as it is to be written.

    Args:
        part: comes back itself where nothing changes.
        written: what becomes of each text.
    """
    found: Part = _Shown(written).part(part)
    return found


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


class _Shown:
    """Goes through a record."""

    def __init__(self, written: Callable[[str], str]) -> None:
        self._written = written

    def part(self, part: Any) -> Any:  # noqa: ANN401 - whatever a record holds
        kind = type(part)
        if kind in _NO_TEXT:
            return part
        if kind is str:
            return self._written(part)
        if kind is tuple:
            parts = tuple(map(self.part, part))
            return part if all(map(operator.is_, parts, part)) else parts
        if kind is dict:
            entries = {self.part(name): self.part(value) for name, value in part.items()}
            return part if entries == part else entries
        copied = getattr(part, "model_copy", None)
        if copied is not None:
            changed = {}
            for name, value in part.__dict__.items():
                # Asked here, too, as most of what a record holds are numbers.
                new = value if type(value) in _NO_TEXT else self.part(value)
                if new is not value:
                    changed[name] = new
            return copied(update=changed) if changed else part
        return part
