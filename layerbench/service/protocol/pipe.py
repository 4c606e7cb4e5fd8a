"""How a measuring process speaks: a JSON object a line, events without waiting. No torch."""

from __future__ import annotations

import json
import os
from typing import Any


class PipeWriter:
    """Lines into a pipe.

    Used by one thread at a time.

    Args:
        descriptor: of the pipe's end that is written.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = b""

    def try_send(self, event: dict[str, Any]) -> bool:
        """Write an event unless somebody would have to wait for the reader; whether it was taken.

        Nothing is taken while the end of an earlier line still waits.
        """
        os.set_blocking(self._descriptor, False)
        if not self._written():
            return False
        self._left = _line({"event": event})
        self._written()
        return True

    def send(self, answer: dict[str, Any], rest: bytes = b"") -> None:
        """Write an answer, and bytes after its line, however long that takes.

        Raises:
            OSError: nobody reads.
        """
        os.set_blocking(self._descriptor, True)
        self._left += _line(answer) + rest
        self._written()

    def _written(self) -> bool:
        """Whether all is written that there was to write."""
        while self._left:
            try:
                count = os.write(self._descriptor, self._left)
            except BlockingIOError:
                return False
            self._left = self._left[count:]
        return True


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
