"""What the machine and the software were while a measurement ran. No torch.

The types come first, then how they are filled: `watch` looks at the room before the
measurement, `RoomWatch.finish` after it. What only torch knows (the device, threads,
settings) is passed in. Readers of the host take the root folder of the file system, so
that tests can give them another machine's ``/proc`` and ``/sys``.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pydantic import Field

from layerbench import __version__
from layerbench.environment import contention
from layerbench.environment.contention import Waits
from layerbench.records.bounds import Count, Figure, Name, Positive, Text
from layerbench.records.workload import Frozen

ROOT = Path("/")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "torchinfo", "pytorch-memlab")
# Environment variables that change how fast the same code runs.
SPEED_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "LD_PRELOAD",
    "MALLOC_CONF",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
# Changes to these change no number: a script that writes several reports would otherwise
# mark all but its first as made by changed code.
NOT_CODE = (
    "stats/**",
    "cpu/*/**",
    "memory_reports/**",
    "model_structures/**",
    "**/*.md",
)
SUBPROCESS_TIMEOUT_S = 10

STEAL_LIMIT = 0.01
OTHER_WORK_LIMIT = 0.05
LOAD_PER_CORE_LIMIT = 0.5
LOOK_S = 0.5


class DeviceInfo(Frozen):
    """The device that ran the model.

    Attributes:
        kind: ``cpu``, ``cuda``, ``xpu``, ``mps``.
        name: as the vendor calls it, e.g. ``AMD EPYC``.
        slug: a folder name made of the name and, on a CPU, its core count: ``amd-epyc-2c``.
        memory_bytes: the device's own memory; on a CPU, the machine's.
        details: anything else worth recording, as text (driver, clocks, compute capability, ...).
    """

    kind: Name
    name: Name
    slug: Name
    memory_bytes: Count | None = None
    details: dict[Name, Text] = Field(default_factory=dict)


class Machine(Frozen):
    """The host: what it is made of and how busy it was. ``None`` means it could not be read.

    Attributes:
        cpu: the model name.
        cores: logical cores of the machine; ``affinity`` lists those this process may use.
        threads, interop_threads: PyTorch's.
        governor: the frequency governor of the cores in use; several joined by ``/``.
        boost: whether the cores may exceed their base frequency.
        load_before, load_after: one-minute load average.
        steal_fraction: of all cores' time, what the hypervisor gave to others during the run.
        other_work_fraction: of all cores' time, what other processes used during the run; as
            long as it has not ended, during a moment before it, looked at under a high load only.
        other_processes_on_device: processes besides this one that use the accelerator.
        waits: how much the measured forwards waited for a core.
    """

    cpu: Text
    cores: Positive
    affinity: tuple[Count, ...] | None = None
    threads: Count | None = None
    interop_threads: Count | None = None
    governor: Text | None = None
    boost: bool | None = None
    memory_bytes: Count | None = None
    load_before: Figure | None = None
    load_after: Figure | None = None
    steal_fraction: Figure | None = None
    other_work_fraction: Figure | None = None
    other_processes_on_device: Count | None = None
    os: Text = ""
    hypervisor: bool | None = None
    # Left out of the JSON where it is None, as in the records from before it was measured.
    waits: Waits | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def too_busy(self) -> str:
        """Why times measured here mean nothing, in one or two sentences; empty where they do."""
        return contention.too_busy(self.waits, self.threads)


class Software(Frozen):
    """Versions, settings that change speed, and where the code stood.

    Attributes:
        layerbench, python: versions.
        packages: version of each installed package of `PACKAGES`.
        settings: PyTorch's switches and the environment variables that change speed.
        commit: of the layerbench checkout; ``None`` if it does not run from one.
        dirty: whether tracked files other than reports and documents differ from the commit.
    """

    layerbench: Name
    python: Name
    packages: dict[Name, Text]
    settings: dict[Name, Text] = Field(default_factory=dict)
    commit: Name | None = None
    dirty: bool | None = None


class Environment(Frozen):
    """Everything about the surroundings of one measurement.

    Attributes:
        command: the command line, program name without its folder.
        started, finished: UTC, ISO 8601, to the second.
        warnings: what about the room makes the numbers less believable, one sentence each.
    """

    device: DeviceInfo
    machine: Machine
    software: Software
    command: Text
    started: Name
    finished: Name
    warnings: tuple[Text, ...] = ()

    def with_waits(self, waits: Waits | None) -> Environment:
        """The same with what the measured forwards waited for a core, and a warning of it."""
        machine = self.machine.model_copy(update={"waits": waits})
        warning = contention.warning(waits, machine.threads)
        warnings = (warning, *self.warnings) if warning else self.warnings
        return self.model_copy(update={"machine": machine, "warnings": warnings})


# --- the watch ---------------------------------------------------------------------------


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


@dataclass(frozen=True)
class RoomWatch:
    """The room as it was before the measurement; `finish` looks again.

    Made by `watch`.
    """

    device: DeviceInfo
    machine: Machine
    software: Software
    command: str
    started: str
    cpu_times: CpuTimes
    core_quota: float | None
    now: Callable[[], datetime]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the room before the measurement, one sentence each."""
        return tuple(warnings_about(self.machine, self.core_quota))

    def finish(self) -> Environment:
        """The environment of the measurement that has just ended."""
        steal, other = fractions_between(self.cpu_times, cpu_times())
        machine = self.machine.model_copy(
            update={
                "load_after": load_average(),
                "steal_fraction": steal,
                "other_work_fraction": other,
            }
        )
        return Environment(
            device=self.device,
            machine=machine,
            software=self.software,
            command=self.command,
            started=self.started,
            finished=utc_text(self.now()),
            warnings=tuple(warnings_about(machine, self.core_quota)),
        )


def utc_now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(timezone.utc)


def watch(
    device: DeviceInfo,
    *,
    software_settings: Mapping[str, str] | None = None,
    threads: int | None,
    interop_threads: int | None,
    other_processes_on_device: int | None = None,
    now: Callable[[], datetime] = utc_now,
    pause: Callable[[float], object] = time.sleep,
) -> RoomWatch:
    """Look at the room; call before the measurement, and `RoomWatch.finish` after it.

    Under a high load average it takes half a second to see whether the load is still there.

    Args:
        device: the device measured on.
        software_settings: PyTorch's switches that change speed, as text.
        threads: PyTorch's intra-op threads.
        interop_threads: PyTorch's inter-op threads.
        other_processes_on_device: processes besides this one on the accelerator, if known.
        now: tells the time, for tests.
        pause: waits some seconds, for tests.
    """
    machine = read_machine()
    known = {
        "threads": threads,
        "interop_threads": interop_threads,
        "other_processes_on_device": other_processes_on_device,
        "other_work_fraction": _other_work_now(pause) if _is_loaded(machine) else None,
    }
    return RoomWatch(
        device=device,
        machine=machine.model_copy(update=known),
        software=read_software(software_settings or {}),
        command=command_line(sys.argv),
        started=utc_text(now()),
        cpu_times=cpu_times(),
        core_quota=core_quota(),
        now=now,
    )


def _other_work_now(pause: Callable[[float], object]) -> float | None:
    before = cpu_times()
    pause(LOOK_S)
    return fractions_between(before, cpu_times())[1]


def utc_text(moment: datetime) -> str:
    """A moment as ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def warnings_about(machine: Machine, quota: float | None = None) -> Iterator[str]:
    """What makes numbers from this room less believable, and what to do, one sentence each.

    Args:
        machine: the host after the measurement.
        quota: the cores' worth of time a control group allows this process, if limited.
    """
    yield from _other_work_warnings(machine)
    if machine.steal_fraction is not None and machine.steal_fraction > STEAL_LIMIT:
        yield (
            f"The hypervisor gave {machine.steal_fraction:.1%} of the cores' time to other "
            "guests: measure on a machine of its own, or repeat with --processes."
        )
    if machine.governor is not None and machine.governor != "performance":
        yield (
            f"The CPU frequency governor is {machine.governor}: set it to performance "
            "for steadier times."
        )
    yield from _thread_warnings(machine, quota)
    if machine.other_processes_on_device:
        count = machine.other_processes_on_device
        yield (
            f"{count} other process{'es use' if count > 1 else ' uses'} the accelerator: "
            "stop what else runs on it and measure again."
        )


def _other_work_warnings(machine: Machine) -> Iterator[str]:
    # The load average looks a minute back, so it also holds the report that the same script
    # made just before; where core time is accounted, that says what runs beside this process.
    if machine.other_work_fraction is not None:
        if machine.other_work_fraction > OTHER_WORK_LIMIT:
            yield (
                f"Other processes used {machine.other_work_fraction:.0%} of the cores' time: "
                "stop other work and measure again."
            )
    elif _is_loaded(machine):
        yield (
            f"The load average was {machine.load_before:.1f} on {machine.cores} "
            f"core{'s' if machine.cores > 1 else ''} before the run: stop other work and "
            "measure again."
        )


def _is_loaded(machine: Machine) -> bool:
    load = machine.load_before
    return load is not None and load > LOAD_PER_CORE_LIMIT * machine.cores


def _thread_warnings(machine: Machine, quota: float | None) -> Iterator[str]:
    if machine.threads is None:
        return
    usable = machine.cores if machine.affinity is None else len(machine.affinity)
    if machine.threads > usable:
        yield (
            f"{machine.threads} threads share {usable} core{'s' if usable > 1 else ''}: "
            f"use --threads {usable} or fewer."
        )
    elif quota is not None and machine.threads > quota:
        yield (
            f"{machine.threads} threads share a quota of {quota:g} cores, so they are stopped "
            f"now and then: use --threads {max(1, int(quota))} or fewer."
        )


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


# --- the command and the software --------------------------------------------------------


def command_line(arguments: Sequence[str]) -> str:
    """The command as a reader would type it, without folders of this machine.

    Absolute paths below the present folder become relative; others keep their last part.

    Args:
        arguments: as in `sys.argv`.
    """
    if not arguments:
        return ""
    program = Path(arguments[0])
    first = ["python", "-m", program.parent.name] if program.name == "__main__.py" else None
    words = [*(first or [program.name]), *map(_without_machine_path, arguments[1:])]
    return shlex.join(words)


def _without_machine_path(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={_without_machine_path(value)}"
    path = Path(argument)
    if not path.is_absolute():
        return argument
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return path.name or argument


def read_software(settings: Mapping[str, str]) -> Software:
    """Versions, the settings given and those in the environment, and the state of the code."""
    commit, dirty = code_version()
    return Software(
        layerbench=__version__,
        python=platform.python_version(),
        packages=package_versions(),
        settings={**settings, **speed_variables(os.environ)},
        commit=commit,
        dirty=dirty,
    )


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the installed packages among ``names``."""
    from importlib import metadata  # not needed by readers of records

    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def speed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that change speed, with paths cut to their last part."""
    found = {name: variables[name] for name in SPEED_VARIABLES if variables.get(name)}
    if "LD_PRELOAD" in found:
        libraries = found["LD_PRELOAD"].replace(":", " ").split()
        found["LD_PRELOAD"] = " ".join(Path(library).name for library in libraries)
    return found


def code_version(package: Path = Path(__file__).parents[1]) -> tuple[str | None, bool | None]:
    """Commit of the checkout that ``package`` is part of, and whether its code was changed.

    Untracked files and changes to reports and documents do not count as changes.

    Returns:
        ``(commit, dirty)``; ``(None, None)`` where there is no git or ``package`` is not
        tracked (an installed copy inside someone else's repository is not that repository).
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    excluded = [f":(top,exclude,glob){pattern}" for pattern in NOT_CODE]
    changes = _git(
        package, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *excluded
    )
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    # Variables such as GIT_DIR, set while a hook runs, would point git at another repository;
    # optional locks would let `status` rewrite the index under another git's feet.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean["GIT_OPTIONAL_LOCKS"] = "0"
    return run_and_read(["git", "-C", str(folder), *arguments], clean)


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


# --- the host ----------------------------------------------------------------------------


def read_machine(root: Path = ROOT) -> Machine:
    """The host and how busy it is now; what only torch knows is left ``None``."""
    import psutil  # not needed by readers of records

    return Machine(
        cpu=cpu_model(root),
        cores=psutil.cpu_count() or 1,
        affinity=affinity(),
        governor=governor(affinity(), root),
        boost=boost(root),
        memory_bytes=psutil.virtual_memory().total,
        load_before=load_average(),
        os=os_name(),
        hypervisor=hypervisor(root),
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
    """The logical cores this process may use, or ``None`` where the system does not say."""
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
    """The CPU as its vendor calls it; ``unknown CPU`` if nothing says."""
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
    first, _, _ = (_read(root / "proc/cpuinfo") or "").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def hypervisor(root: Path = ROOT) -> bool | None:
    """Whether the CPU says that it is virtual; ``None`` if it would not say (ARM, macOS)."""
    flags = _cpuinfo(root).get("flags")
    return None if flags is None else "hypervisor" in flags.split()


def governor(cores: Sequence[int] | None, root: Path = ROOT) -> str | None:
    """The frequency governor of these cores (all, if ``None``); several are joined by ``/``."""
    system = root / "sys/devices/system/cpu"
    numbers: Sequence[int | str] = ["[0-9]*"] if cores is None else cores
    files = (
        file for number in numbers for file in system.glob(f"cpu{number}/cpufreq/scaling_governor")
    )
    return "/".join(sorted({text for file in files if (text := _read(file))})) or None


def boost(root: Path = ROOT) -> bool | None:
    """Whether the cores may exceed their base frequency; ``None`` if that cannot be read."""
    system = root / "sys/devices/system/cpu"
    no_turbo = _read(system / "intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    enabled = _read(system / "cpufreq/boost")
    return None if enabled is None else enabled == "1"


def os_name() -> str:
    """The distribution and the kernel, such as ``Debian GNU/Linux 12, Linux 6.1.0 x86_64``."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}".strip()
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


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
        both = (_read(folder / "cpu.max") or "").split()
        old = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        quota, period = both if len(both) == 2 else old
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's control group and those above it, versions 1 and 2."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
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
    pairs = (line.split() for line in (_read(folder / "memory.stat") or "").splitlines())
    entries = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return entries.get("total_inactive_file", entries.get("inactive_file", 0))


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        text = _read(folder / name)
        if text is not None and text.isdigit():
            return int(text)
    return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
