"""The memory and cores that a control group (a container) allows. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layerbench.environment.machine import ROOT, read_file


def host_memory(root: Path = ROOT) -> tuple[int, int]:
    """Bytes of memory this process could have and could still get: ``(total, free)``.

    The machine's, or those of a control group (a container) where that allows less. File
    caches count as free.
    """
    import psutil  # not needed by readers of records

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for folder in _cgroup_folders("memory", root):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is None or used is None:
            continue
        total = min(total, limit)
        free = min(free, max(0, limit - used + _inactive_file_bytes(folder)))
    return total, free


def core_quota(root: Path = ROOT) -> float | None:
    """The cores' worth of time a control group allows, such as 2.5; ``None`` if unlimited."""
    quotas = []
    for folder in _cgroup_folders("cpu", root):
        both = (read_file(folder / "cpu.max") or "").split()
        old = [read_file(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        quota, period = both if len(both) == 2 else old
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's control group and those above it, versions 1 and 2."""
    for line in (read_file(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the group may be named as the host sees it; its files are then at
        # the mount itself, which the walk ends with.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:length])


def _inactive_file_bytes(folder: Path) -> int:
    pairs = (line.split() for line in (read_file(folder / "memory.stat") or "").splitlines())
    entries = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return entries.get("total_inactive_file", entries.get("inactive_file", 0))


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        text = read_file(folder / name)
        if text is not None and text.isdigit():
            return int(text)
    return None
