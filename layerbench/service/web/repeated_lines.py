"""The log's lines of one kind: the first of each second are written, the others counted.

A client that asks without end would fill the disk with what it was answered. Loads no torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from structlog import DropEvent
from structlog.typing import EventDict

# Lines a second, of one kind and of all.
OF_A_KIND, OF_ALL = 10, 50
SECOND_S = 1.0
# Different ones that are counted apart.
MOST_KINDS = 256
# What makes a kind, beside the text.
PARTS = ("level", "source", "method", "route", "status", "state")

Kind = tuple[str, ...]


@dataclass
class _Count:
    written: int = 0
    left_out: int = 0


class Repeats:
    """Counts lines by their kind; a processor of structlog. Used by several threads.

    Args:
        begins: is called when the first line of a second is left out.
    """

    def __init__(self, begins: Callable[[], object]) -> None:
        self._begins = begins
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._counts: dict[Kind, _Count] = {}
        self._written = 0
        self._left_out = False

    def __call__(self, _: object, __: str, line: EventDict) -> EventDict:
        """Let a line pass, or count it.

        Raises:
            DropEvent: there were enough of its kind.
        """
        with self._lock:
            if not self._left_out and time.monotonic() - self._since >= SECOND_S:
                self._begin_again()
            count = self._counted(line)
            if count.written < OF_A_KIND and (self._written < OF_ALL or not count.written):
                count.written += 1
                self._written += 1
                return line
            count.left_out += 1
            first, self._left_out = not self._left_out, True
        if first:
            self._begins()
        raise DropEvent

    def left_out(self, whenever: bool = False) -> list[EventDict] | None:
        """After each second, lines that count those left out.

        Args:
            whenever: also before it is over.

        Returns:
            One for each kind; ``None`` where some were left out, and the second is not yet over.
        """
        with self._lock:
            if not self._left_out:
                return []
            if not whenever and time.monotonic() - self._since < SECOND_S:
                return None
            lines: list[EventDict] = [
                {**dict(_parts(kind)), "left_out": count.left_out}
                for kind, count in self._counts.items()
                if count.left_out
            ]
            self._begin_again()
        return lines

    def _counted(self, line: EventDict) -> _Count:
        kind: Kind = (str(line.get("event"))[:200], *(str(line.get(part, "")) for part in PARTS))
        if kind not in self._counts and len(self._counts) >= MOST_KINDS:
            kind = ("of other kinds", *[""] * len(PARTS))
        return self._counts.setdefault(kind, _Count())

    def _begin_again(self) -> None:
        self._since = time.monotonic()
        self._counts = {}
        self._written = 0
        self._left_out = False


def _parts(kind: Kind) -> list[tuple[str, str]]:
    """A kind as names and values, without those that it does not have."""
    return [(name, part) for name, part in zip(("event", *PARTS), kind, strict=True) if part]
