"""A process that ends with the one that started it, however that one ends.

Both ways are needed. Linux ends it even while native code runs. On every system the parent holds
standard input open, whose end is the signal.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

ORPHANED = 3
# Of prctl(2).
PARENT_DEATH_SIGNAL = 1


def end_with_parent(parent: int | None = None) -> None:
    """Let Linux end this process when the thread that started it ends.

    Args:
        parent: its process's number; where that is gone already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(ORPHANED)


def end_with_input() -> None:
    """End this process when its standard input does."""
    threading.Thread(target=_end_with_input, name="layerbench parent", daemon=True).start()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(ORPHANED)
