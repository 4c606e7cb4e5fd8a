"""Room on Python's stack for the frames of instruments.

A module's call takes three frames, and an instrument adds up to five: a model that is nested as
deeply as Python allows would fail only because it is measured.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FACTOR = 4
# Deeper than this the C stack would end first.
MOST = 10_000


class _Limit:
    """Python's recursion limit, raised while anybody wants it so.

    Blocks may overlap in any order; the last to end puts the limit back. Where somebody else has
    set one meanwhile, that one stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = self._ours = 0

    def begin(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = sys.getrecursionlimit()
                self._ours = max(self._before, min(FACTOR * self._before, MOST))
                sys.setrecursionlimit(self._ours)
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and sys.getrecursionlimit() == self._ours:
                sys.setrecursionlimit(self._before)


_LIMIT = _Limit()


@contextmanager
def deeper_stack() -> Iterator[None]:
    """A higher recursion limit for the duration of a ``with`` block, unless it is high already."""
    _LIMIT.begin()
    try:
        yield
    finally:
        _LIMIT.end()
