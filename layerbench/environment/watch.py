"""The machine around a measurement: load, stolen time, clocks, before and after. Loads no torch.

`watch` looks before the measurement, `EnvironmentWatch.finish` after it. What only torch knows (the
device, threads, settings) is passed in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from layerbench.environment import notebook
from layerbench.environment.cgroups import core_quota
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.machine import (
    CpuTimes,
    cpu_times,
    fractions_between,
    load_average,
    read_machine,
)
from layerbench.environment.software import command_line, read_software
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import DeviceInfo, Environment, Machine, Software

STEAL_LIMIT = 0.01
OTHER_WORK_LIMIT = 0.05
LOAD_PER_CORE_LIMIT = 0.5
LOOK_S = 0.5


# --- the watch ---------------------------------------------------------------------------


# In place of a command: that of the kernel says nothing.
_IN_NOTEBOOK = "in a notebook"


@dataclass(frozen=True)
class EnvironmentWatch:
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
    other_processes_on_device: Callable[[], int | None]
    now: Callable[[], datetime]
    conditions: ConditionsWatch

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the room before the measurement, one sentence each."""
        return tuple(warnings_about(self.machine, self.core_quota))

    def finish(self, ended: CpuTimes | None = None) -> Environment:
        """The environment of the measurement that has just ended.

        Args:
            ended: what the cores had done when it ended, where that is a while ago.
        """
        steal, other = fractions_between(self.cpu_times, ended or cpu_times())
        machine = self.machine.model_copy(
            update={
                "load_after": load_average(),
                "steal_fraction": steal,
                "other_work_fraction": other,
                "other_processes_on_device": self._most_other_processes(),
            }
        )
        conditions = self.conditions.conditions()
        slow = (conditions.warning,) if conditions and conditions.warning else ()
        return Environment(
            device=self.device,
            machine=machine,
            software=self.software,
            command=self.command,
            started=self.started,
            finished=utc_text(self.now()),
            warm_up=self.conditions.warm_up,
            conditions=conditions,
            warnings=(*slow, *warnings_about(machine, self.core_quota)),
        )

    def _most_other_processes(self) -> int | None:
        """On the accelerator, before the measurement or now."""
        counts = (self.machine.other_processes_on_device, self.other_processes_on_device())
        return max((count for count in counts if count is not None), default=None)


def unknown() -> None:
    """How many other processes are on a device of which nobody can tell."""


def utc_now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(timezone.utc)


def watch(
    device: DeviceInfo,
    *,
    software_settings: Mapping[str, str] | None = None,
    threads: int | None,
    interop_threads: int | None,
    other_processes_on_device: Callable[[], int | None] = unknown,
    look: Callable[[], DeviceLook | None] = lambda: None,
    now: Callable[[], datetime] = utc_now,
    pause: Callable[[float], object] = time.sleep,
) -> EnvironmentWatch:
    """Look at the room; call before the measurement, and `EnvironmentWatch.finish` after it.

    Under a high load average it takes half a second to see whether the load is still there.

    Args:
        device: the device measured on.
        software_settings: PyTorch's switches that change speed, as text.
        threads: PyTorch's intra-op threads.
        interop_threads: PyTorch's inter-op threads.
        other_processes_on_device: counts the processes besides this one on the accelerator; is
            asked before the measurement and after it.
        look: at the device, to be taken between rounds (`EnvironmentWatch.conditions`).
        now: the clock, for tests.
        pause: waits some seconds, for tests.
    """
    machine = read_machine()
    facts = {
        "threads": threads,
        "interop_threads": interop_threads,
        "other_processes_on_device": other_processes_on_device(),
        "other_work_fraction": _other_work_now(pause) if _is_loaded(machine) else None,
    }
    return EnvironmentWatch(
        device=device,
        machine=machine.model_copy(update=facts),
        software=read_software(software_settings or {}),
        command=_IN_NOTEBOOK if notebook.is_running() else command_line(sys.argv),
        started=utc_text(now()),
        cpu_times=cpu_times(),
        core_quota=core_quota(),
        other_processes_on_device=other_processes_on_device,
        now=now,
        conditions=ConditionsWatch(look),
    )


def _other_work_now(pause: Callable[[float], object]) -> float | None:
    before = cpu_times()
    pause(LOOK_S)
    return fractions_between(before, cpu_times())[1]


def utc_text(moment: datetime) -> str:
    """A moment as ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def warnings_about(machine: Machine, quota: float | None = None) -> Iterator[str]:
    """Conditions that make the figures less reliable, and what to do, one sentence each.

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
