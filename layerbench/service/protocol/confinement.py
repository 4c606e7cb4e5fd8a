"""What each process of the service does first with itself: its end and its memory. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path

# Of prctl(2).
PARENT_DEATH_SIGNAL = 1
# Of 1000.
OOM_SCORE = 500
# So much less pressing than a measurement is what must not disturb one.
NICE = 5


def end_first() -> None:
    """Be what Linux ends: with the server, and where memory runs out before the server."""
    if sys.platform != "linux":
        return
    # Also where native code keeps the interpreter from seeing that standard input has ended.
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def limit_memory(size: int | None) -> None:
    """The process's memory limit: an allocation beyond it fails and is reported as such.

    Not the address space, of which CUDA and libraries reserve far more than they use.
    """
    if size is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
