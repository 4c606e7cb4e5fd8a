"""An interrupt is heard also where a library swallows it: PyTorch does so while it loads NumPy."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# As Python's own frames of an import are told.
_LOADING = "<frozen importlib._bootstrap>"
AGAIN_S = 0.25


class Interrupts:
    """Raises `KeyboardInterrupt`, and again a moment later if that happened during an import.

    Attributes:
        while_loading: whether one fell into an import, after which parts of a library may lack.
    """

    def __init__(self) -> None:
        self.while_loading = False
        self._again: threading.Timer | None = None

    def interrupt(self, _: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if _loads(frame):
            self.while_loading = True
            self._again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
            self._again.daemon = True
            self._again.start()
        raise KeyboardInterrupt

    def end(self) -> None:
        """Whatever was raised has been heard."""
        if self._again is not None:
            self._again.cancel()


def _loads(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _LOADING:
        frame = frame.f_back
    return frame is not None


@contextmanager
def heard() -> Iterator[Interrupts]:
    """Hear every interrupt for as long as the block runs; where nobody else handles them."""
    interrupts = Interrupts()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, interrupts.interrupt)
    try:
        yield interrupts
    finally:
        interrupts.end()
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
