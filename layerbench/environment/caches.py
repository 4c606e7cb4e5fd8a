"""The size of the caches between the cores and memory. Loads no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from layerbench.environment.machine import ROOT

_CPUS = Path("sys/devices/system/cpu")
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def last_level_bytes(root: Path = ROOT) -> int | None:
    """Bytes of the last-level caches that this process's cores reach, each counted once.

    A processor may have several, each for some of its cores. A virtual machine's may be shared
    with others. ``None`` where the system does not say (Linux's
    Documentation/ABI/testing/sysfs-devices-system-cpu).
    """
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    found: dict[str, int] = {}
    for core in cores:
        caches = sorted((root / _CPUS / f"cpu{core}" / "cache").glob("index*"), key=_level)
        if caches and (size := _bytes(_text(caches[-1] / "size"))):
            found[_text(caches[-1] / "shared_cpu_list") or str(core)] = size
    return sum(found.values()) or None


def _level(cache: Path) -> int:
    text = _text(cache / "level")
    return int(text) if text.isdigit() else 0


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
