"""What the operating system says the process holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layerbench.records.memory import ProcessMemory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
# Linux sets the peak back to the present value when this is written (man 5 proc).
_RESET_PEAK = "5"


@dataclass
class ResidentSet:
    """The process's resident set while a block ran; ``figures`` is ``None`` if it is unknown."""

    figures: ProcessMemory | None = None


@contextmanager
def resident_set() -> Iterator[ResidentSet]:
    """Note the resident set before a block and its peak inside.

    Linux only: other systems give the peak of the whole process's life, which says nothing of
    the block.
    """
    result = ResidentSet()
    before = _read("VmRSS") if _peak_is_reset() else None
    try:
        yield result
    finally:
        peak = _read("VmHWM")
        if before is not None and peak is not None:
            result.figures = ProcessMemory(before=before, peak=peak)


def resident_peak() -> int | None:
    """Bytes of the process's resident set at its largest; ``None`` where it cannot be read."""
    return _read("VmHWM")


def _peak_is_reset() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _read(name: str) -> int | None:
    """Bytes of one line of the status, which counts in KiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines if line.startswith(f"{name}:")]
    return int(fields[0][1]) * 1024 if fields else None
