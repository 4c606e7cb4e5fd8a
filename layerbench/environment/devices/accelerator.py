"""Accelerators behind PyTorch's general interface: xpu, mps, and those of `torch.accelerator`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from layerbench.environment.cgroups import host_memory
from layerbench.environment.devices.clocks import Clock, DeviceEvents, Event, PerfCounter
from layerbench.environment.devices.device import (
    Device,
    DeviceType,
    MemoryErrors,
    MemoryInfo,
    Uncounted,
    slug,
)
from layerbench.environment.machine import cpu_model
from layerbench.records.environment import DeviceInfo

_WITH_FILES_OF_THEIR_OWN = ("cpu", "cuda")


class Accelerator(Uncounted, MemoryErrors):
    """One accelerator, driven through `torch`'s general interface.

    Args:
        kind: PyTorch's name of the backend.
        index: its number, or ``None`` for the current one.
    """

    def __init__(self, kind: str, index: int | None = None) -> None:
        self.kind = kind
        self.torch_device = torch.device(kind) if index is None else torch.device(kind, index)

    def clock(self) -> Clock:
        """Timing events where the backend has them, else a host clock that waits at each mark."""
        make_event = self._event_maker()
        if make_event is None:
            return WaitingClock(self._synchronize)
        return DeviceEvents(make_event, self._synchronize)

    def _event_maker(self) -> Callable[[], Event] | None:
        for maker in self._event_makers():
            try:
                start, end = maker(), maker()
                start.record()
                end.record()
                self._synchronize()
                start.elapsed_time(end)
            except (RuntimeError, TypeError, AttributeError, NotImplementedError):
                continue
            return maker
        return None

    def _event_makers(self) -> Iterator[Callable[[], Any]]:
        if hasattr(torch, "Event"):
            yield partial(torch.Event, device=self.torch_device, enable_timing=True)
        own = getattr(self._module(), "Event", None)
        if own is not None:
            yield partial(own, enable_timing=True)

    def _module(self) -> Any:  # noqa: ANN401 - torch.xpu, torch.mps, ...
        return getattr(torch, self.kind, None)

    def _synchronize(self) -> None:
        generic = getattr(torch, "accelerator", None)
        if generic is not None:
            generic.synchronize(self.torch_device)
        else:
            self._module().synchronize()

    def memory(self) -> MemoryInfo:
        """The device's memory; the host's for a backend that reports none or shares it."""
        read = getattr(self._module(), "mem_get_info", None)
        if read is not None:
            free, total = read(self.torch_device)
            return MemoryInfo(total_bytes=total, free_bytes=free)
        total, free = host_memory()
        if self.kind == "mps":
            limit = torch.mps.recommended_max_memory()
            held = torch.mps.driver_allocated_memory()
            total, free = min(total, limit), min(free, max(0, limit - held))
        return MemoryInfo(total_bytes=total, free_bytes=free)

    def describe(self) -> DeviceInfo:
        """The name, if the backend has one."""
        name = self._name()
        return DeviceInfo(
            kind=self.kind,
            name=name,
            slug=slug(name),
            memory_bytes=self.memory().total_bytes,
            details=self._details(),
        )

    def _name(self) -> str:
        if self.kind == "mps":
            return f"{cpu_model()} GPU"
        read = getattr(self._module(), "get_device_name", None)
        return str(read(self.torch_device)) if read is not None else self.kind

    def _details(self) -> dict[str, str]:
        if self.kind == "mps":
            return {"macOS": platform.mac_ver()[0]}
        read = getattr(self._module(), "get_device_properties", None)
        driver = getattr(read(self.torch_device), "driver_version", None) if read else None
        return {"driver": str(driver)} if driver else {}

    def other_processes(self) -> int | None:
        """Not known."""
        return None


class AcceleratorType:
    """Whatever PyTorch finds that has no file of its own."""

    rank = 50

    def names(self) -> list[str]:
        """``xpu:0``, ``mps``, ..."""
        return [name for kind in _kinds() for name in _names(kind)]

    def open(self, name: str) -> Device:
        """The accelerator of this name."""
        kind, colon, number = name.partition(":")
        return Accelerator(kind, int(number) if colon else None)


DEVICE_TYPES: tuple[DeviceType, ...] = (AcceleratorType(),)


def _kinds() -> list[str]:
    """The backends that are there; PyTorch before 2.6 has no general way to ask."""
    kinds = []
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        kinds.append("xpu")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    generic = getattr(torch, "accelerator", None)
    if generic is not None and generic.is_available():
        kinds.append(generic.current_accelerator().type)
    return [kind for kind in dict.fromkeys(kinds) if kind not in _WITH_FILES_OF_THEIR_OWN]


def _names(kind: str) -> list[str]:
    count = getattr(getattr(torch, kind, None), "device_count", None)
    if kind == "mps" or count is None:
        return [kind]
    return [f"{kind}:{index}" for index in range(count())]


class WaitingClock(PerfCounter):
    """The host's clock for a device without timing events: every mark waits for the device.

    The device cannot run ahead, so layers take longer than they would without marks. The
    reconciliation shows by how much.

    Args:
        wait: returns once the device is idle.
    """

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

        def mark() -> int:
            wait()
            return time.perf_counter_ns()

        self.mark = mark

    def synchronize(self) -> None:
        """Wait until the device is idle."""
        self._wait()
