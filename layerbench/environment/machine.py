"""The host: its parts, and how busy it is. Loads no torch.

Readers take the root folder of the file system, so that tests can give them another machine's
``/proc`` and ``/sys``.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbench.records.environment import Machine

ROOT = Path("/")


SUBPROCESS_TIMEOUT_S = 10


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of core time since boot, all cores added up, and this process's share.

    Attributes:
        total: all time, idle included.
        busy: time spent in any process or in the kernel.
        steal: time the hypervisor gave to others; ``None`` where it is not accounted.
        own: this process and its ended children.
    """

    total: float
    busy: float
    steal: float | None
    own: float


def fractions_between(before: CpuTimes, after: CpuTimes) -> tuple[float | None, float | None]:
    """Fractions of all cores' time between two readings: stolen, and used by other processes.

    ``None`` where it is not accounted or no time has passed.
    """
    total = after.total - before.total
    if total <= 0:
        return None, None
    steal = None
    if before.steal is not None and after.steal is not None:
        steal = _clamp((after.steal - before.steal) / total)
    others = (after.busy - before.busy) - (after.own - before.own)
    return steal, _clamp(others / total)


def _clamp(fraction: float) -> float:
    # The kernel's ticks and the process's own accounting differ by a few milliseconds.
    return min(1.0, max(0.0, fraction))


def run_and_read(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str | None:
    """What a command prints, stripped; ``None`` if it is missing, fails, or takes too long."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            check=True,
            env=variables,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=SUBPROCESS_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read_machine() -> Machine:
    """The host and how busy it is now; fields that need torch are ``None``."""
    import psutil  # not needed by readers of records

    return Machine(
        cpu=cpu_model(),
        cores=psutil.cpu_count() or 1,
        affinity=affinity(),
        governor=governor(affinity()),
        boost=boost(),
        memory_bytes=psutil.virtual_memory().total,
        load_before=load_average(),
        os=os_name(),
        hypervisor=hypervisor(),
    )


def cpu_times() -> CpuTimes:
    """Core time used so far, by everyone and by this process."""
    import psutil  # not needed by readers of records

    times = psutil.cpu_times()._asdict()
    # psutil's user and nice hold the guests' time already.
    parts = {name: value for name, value in times.items() if not name.startswith("guest")}
    total = sum(parts.values())
    resting = sum(parts.get(name, 0.0) for name in ("idle", "iowait", "steal"))
    own = os.times()
    return CpuTimes(
        total=total,
        busy=total - resting,
        steal=parts.get("steal"),
        own=own.user + own.system + own.children_user + own.children_system,
    )


def affinity() -> tuple[int, ...] | None:
    """The logical cores this process may use; ``None`` if the system does not tell them."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return tuple(sorted(os.sched_getaffinity(0)))


def usable_cores() -> int:
    """How many logical cores this process may use."""
    import psutil  # not needed by readers of records

    cores = affinity()
    return len(cores) if cores else psutil.cpu_count() or 1


def load_average() -> float | None:
    """The one-minute load average, or ``None`` where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def cpu_model(root: Path = ROOT) -> str:
    """The vendor's name of the CPU; ``unknown CPU`` if there is none."""
    return (
        _cpuinfo(root).get("model name")
        or _lscpu_model()
        or run_and_read(["sysctl", "-n", "machdep.cpu.brand_string"])
        or platform.processor()
        or platform.machine()
        or "unknown CPU"
    )


def _lscpu_model() -> str | None:
    # ARM's cpuinfo gives part numbers only; lscpu knows their names.
    printed = run_and_read(["lscpu"], {**os.environ, "LC_ALL": "C"}) or ""
    for line in printed.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model name" and value.strip() not in ("", "-"):
            return value.strip()
    return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first core's entries in ``/proc/cpuinfo``."""
    first, _, _ = (read_file(root / "proc/cpuinfo") or "").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def hypervisor(root: Path = ROOT) -> bool | None:
    """Whether the CPU reports a hypervisor; ``None`` where it never does (ARM, macOS)."""
    flags = _cpuinfo(root).get("flags")
    return None if flags is None else "hypervisor" in flags.split()


def governor(cores: Sequence[int] | None, root: Path = ROOT) -> str | None:
    """The frequency governor of these cores (all, if ``None``); several are joined by ``/``."""
    system = root / "sys/devices/system/cpu"
    numbers: Sequence[int | str] = ["[0-9]*"] if cores is None else cores
    files = (
        file for number in numbers for file in system.glob(f"cpu{number}/cpufreq/scaling_governor")
    )
    return "/".join(sorted({text for file in files if (text := read_file(file))})) or None


def boost(root: Path = ROOT) -> bool | None:
    """Whether the cores may exceed their base frequency; ``None`` if that cannot be read."""
    system = root / "sys/devices/system/cpu"
    no_turbo = read_file(system / "intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    enabled = read_file(system / "cpufreq/boost")
    return None if enabled is None else enabled == "1"


def os_name() -> str:
    """The distribution and the kernel, such as ``Debian GNU/Linux 12, Linux 6.1.0 x86_64``."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}".strip()
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def read_file(file: Path) -> str | None:
    """A file's text, stripped; ``None`` where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
