"""The CPU: its clock, and its memory within a container's limit."""

from __future__ import annotations

import re

import torch

from layerbench.environment import cgroups, machine
from layerbench.environment.devices.clocks import Clock, PerfCounter
from layerbench.environment.devices.device import (
    Device,
    DeviceType,
    MemoryErrors,
    MemoryInfo,
    Uncounted,
    slug,
    without_marks,
)
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import DeviceInfo


class Cpu(Uncounted, MemoryErrors):
    """The logical cores this process may use."""

    kind = "cpu"
    torch_device = torch.device("cpu")

    def clock(self) -> Clock:
        """The host's monotonic clock."""
        return PerfCounter()

    def memory(self) -> MemoryInfo:
        """The machine's memory, or a control group's where that is less."""
        total, free = cgroups.host_memory()
        return MemoryInfo(total_bytes=total, free_bytes=free)

    def block_queue(self, seconds: float) -> bool:  # noqa: ARG002
        """It has no queue."""
        return False

    def describe(self) -> DeviceInfo:
        """Model name, instruction set, and the limits put on this process."""
        name = machine.cpu_model()
        details = {"instruction set": torch.backends.cpu.get_cpu_capability()}
        quota = cgroups.core_quota()
        if quota is not None:
            details["core quota"] = f"{quota:g}"
        return DeviceInfo(
            kind=self.kind,
            name=name,
            slug=cpu_slug(name, machine.usable_cores()),
            memory_bytes=self.memory().total_bytes,
            details=details,
        )

    def look(self) -> DeviceLook | None:
        """Not told."""
        return None

    def other_processes(self) -> int | None:
        """Not counted: what they use of the cores is (`Machine.other_work_fraction`)."""
        return None


class CpuType:
    """There is always one CPU."""

    rank = 100

    def names(self) -> list[str]:
        """``cpu``."""
        return ["cpu"]

    def open(self, name: str) -> Device:  # noqa: ARG002 - there is only one
        """The CPU."""
        return Cpu()


DEVICE_TYPES: tuple[DeviceType, ...] = (CpuType(),)

_NOISE = (
    r"\b\d+(?:th|st|nd|rd) gen\b",
    r"@.*",
    r"\b(?:with|w/) .*",
    r"\bradeon .*",
    r"\b(?:\d+|two|dual|triple|quad|four|six|eight|twelve|sixteen)[- ]cores?\b",
    r"\bprocessor\b",
    r"(?<!virtual )\bcpu\b",
)


def cpu_slug(name: str, cores: int) -> str:
    """A folder name for a CPU: the vendor's name without ornament, and the cores in use.

    Example:
        >>> cpu_slug("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", 4)
        'intel-xeon-platinum-8375c-4c'
    """
    text = without_marks(name.lower())
    for pattern in _NOISE:
        text = re.sub(pattern, " ", text)
    return f"{slug(text)}-{cores}c"
