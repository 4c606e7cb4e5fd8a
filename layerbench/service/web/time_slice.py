"""A short time slice of Linux's scheduler for the thread that answers. Loads no torch.

A thread that wakes up waits until the one that runs has had its slice, and a measurement keeps all
cores busy. One with a shorter slice need not wait, as long as it takes less than its share of the
processor. It runs earlier, not longer. That needs Linux 6.12 and no privilege; elsewhere nothing is
done. Sources: `sched_setattr(2)`, and `Documentation/scheduler/sched-eevdf.rst` of the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

# The shortest that the kernel gives. Its usual one is 0.7 to 2.8 ms, by the number of cores.
SHORT_NS = 100_000
# What the thread starts has the usual slice, so that a measuring process runs as any other.
RESET_ON_FORK = 0x01
SCHED_OTHER = 0
# Numbers of the system calls that set and get, on 64-bit systems; the C library has names for them
# from glibc 2.41 on.
_CALLS = {
    "x86_64": (314, 315),
    "aarch64": (274, 275),
    "riscv64": (274, 275),
}


class _Attributes(NamedTuple):
    """``struct sched_attr`` in its first version."""

    size: int
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


_FORM = struct.Struct("=IIQiIQQQ")


@contextmanager
def short_time_slice() -> Iterator[None]:
    """Give the calling thread a short slice until the end, where the kernel knows such a thing."""
    before = _read()
    # A kernel before 6.12 tells no slice of an ordinary thread. Another policy was chosen.
    if before is None or before.policy != SCHED_OTHER or before.runtime <= SHORT_NS:
        yield
        return
    _set(before._replace(runtime=SHORT_NS, flags=before.flags | RESET_ON_FORK))
    try:
        yield
    finally:
        # Only a privileged process may take the flag back.
        if not _set(before):
            _set(before._replace(flags=before.flags | RESET_ON_FORK))


def _read() -> _Attributes | None:
    """How the calling thread is scheduled; ``None`` where that cannot be known."""
    buffer = ctypes.create_string_buffer(_FORM.size)
    if not _call(1, buffer, _FORM.size, 0):
        return None
    return _Attributes(*_FORM.unpack(buffer.raw))


def _set(attributes: _Attributes) -> bool:
    """Schedule the calling thread like this; whether that was done."""
    return _call(0, ctypes.create_string_buffer(_FORM.pack(*attributes), _FORM.size), 0)


def _call(which: int, buffer: ctypes.Array[ctypes.c_char], *rest: int) -> bool:
    """The first or the second of the system calls, for the calling thread."""
    calls = _CALLS.get(platform.machine())
    if sys.platform != "linux" or calls is None or sys.maxsize < 2**32:
        return False
    with contextlib.suppress(OSError, AttributeError):
        long = ctypes.c_long
        return not ctypes.CDLL(None).syscall(long(calls[which]), long(0), buffer, *map(long, rest))
    return False
