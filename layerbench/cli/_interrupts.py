"""An interrupt waits for the import that it falls into: libraries would swallow it, or abort.

PyTorch does both while it loads: it takes NumPy for missing, or ends the process from C++.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# As Python's own frames of an import are told.
_LOADING = "<frozen importlib._bootstrap>"
AGAIN_S = 0.1
# A model's file may do anything while it is imported.
PATIENCE_S = 5.0


class Interrupts:
    """Raises `KeyboardInterrupt`, once no import is in progress; the second one at once.

    Attributes:
        waiting: whether one fell into an import.
    """

    def __init__(self) -> None:
        self.waiting = False
        self._ends = 0.0
        self._ours = False
        self._again: threading.Timer | None = None

    def interrupt(self, _: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        first, self.waiting = not self.waiting, True
        ours, self._ours = self._ours, False
        now = time.monotonic()
        if first:
            self._ends = now + PATIENCE_S
        if not _loads(frame):
            raise KeyboardInterrupt
        self.end()
        self._again = threading.Timer(AGAIN_S, self._ask_again)
        self._again.daemon = True
        self._again.start()
        if not (first or ours) or now > self._ends:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Whatever was raised has been heard."""
        if self._again is not None:
            self._again.cancel()

    def _ask_again(self) -> None:
        self._ours = True
        os.kill(os.getpid(), signal.SIGINT)


def _loads(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _LOADING:
        frame = frame.f_back
    return frame is not None


@contextmanager
def heard() -> Iterator[Interrupts]:
    """Handle every interrupt while the block runs, unless another handler is set."""
    interrupts = Interrupts()
    unhandled = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if unhandled:
        signal.signal(signal.SIGINT, interrupts.interrupt)
    try:
        yield interrupts
    finally:
        interrupts.end()
        if unhandled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
