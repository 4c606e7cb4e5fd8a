"""Accelerators behind PyTorch's general interface: xpu, mps, and those of `torch.accelerator`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from typing import Any

import torch

from layerbench.environment.cgroups import host_memory
from layerbench.environment.devices.blocking import QueueBlocker, products
from layerbench.environment.devices.clocks import Clock, DeviceEvents, Event, PerfCounter
from layerbench.environment.devices.device import (
    Device,
    DeviceType,
    MemoryErrors,
    MemoryInfo,
    slug,
)
from layerbench.environment.devices.timing_events import event_maker
from layerbench.environment.machine import cpu_model
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import DeviceInfo
from layerbench.records.memory import AllocatorFigures

_WITH_FILES_OF_THEIR_OWN = ("cpu", "cuda")


class Accelerator(MemoryErrors):
    """One accelerator, driven through `torch`'s general interface.

    What `torch.accelerator` lacks, in PyTorch before 2.6 all of it, the backend's own module may
    have under the same name.

    Args:
        kind: PyTorch's name of the backend.
        index: its number, or ``None`` for the current one.
    """

    def __init__(self, kind: str, index: int | None = None) -> None:
        self.kind = kind
        self.torch_device = torch.device(kind) if index is None else torch.device(kind, index)

    def clock(self) -> Clock:
        """Timing events where the backend has them, else a host clock that waits at each mark."""
        make_event = self._make_event
        if make_event is None:
            return WaitingClock(self._synchronize)
        return DeviceEvents(make_event, self._synchronize, self._queue)

    @cached_property
    def _make_event(self) -> Callable[[], Event] | None:
        own = getattr(self._module(), "Event", None)
        return event_maker(self.torch_device, own, self._queue, self._synchronize)

    def _module(self) -> Any:  # noqa: ANN401 - torch.xpu, torch.mps, ...
        return getattr(torch, self.kind, None)

    def _ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever it says
        """What a function of `torch.accelerator` says, or the backend's own of this name.

        ``None`` where neither is there, or both refuse.
        """
        for owner in (getattr(torch, "accelerator", None), self._module()):
            function = getattr(owner, name, None)
            with suppress(RuntimeError, ValueError):
                if function is not None:
                    return function(*arguments)
        return None

    def _queue(self) -> object:
        """The current one of this device, which need not be the current device."""
        return self._ask("current_stream", self.torch_device)

    def _synchronize(self) -> None:
        generic = getattr(torch, "accelerator", None)
        if generic is not None:
            generic.synchronize(self.torch_device)
        else:
            self._module().synchronize()

    def block_queue(self, seconds: float) -> bool:
        """Let the device work for about so long before what is launched from now on."""
        if self._blocker is None:
            return False
        with self._current():
            return self._blocker.block(seconds)

    @cached_property
    def _blocker(self) -> QueueBlocker | None:
        clock = self.clock()
        if not isinstance(clock, DeviceEvents):
            return None
        spin = getattr(self._module(), "_sleep", None) or products(self.torch_device)
        return QueueBlocker(clock, spin)

    def _current(self) -> AbstractContextManager[object]:
        """This device is the current one for the duration of a ``with`` block."""
        index = self.torch_device.index
        chosen = index is not None and (
            self._ask("device_index", index) or self._ask("device", index)
        )
        return chosen or nullcontext()

    def memory(self) -> MemoryInfo:
        """The device's memory; the host's for a backend that reports none or shares it.

        What this process's allocator keeps for later counts as free.
        """
        left, held = self._left_to_libraries(), self.held()
        if held is None:
            return left
        free = left.free_bytes + max(0, held.reserved - held.allocated)
        return left.model_copy(update={"free_bytes": min(left.total_bytes, free)})

    def _left_to_libraries(self) -> MemoryInfo:
        told = self._ask("get_memory_info", self.torch_device)
        told = told or self._ask("mem_get_info", self.torch_device)
        if told is not None:
            free, total = told
            return MemoryInfo(total_bytes=total, free_bytes=free)
        total, free = host_memory()
        if self.kind == "mps":
            limit = torch.mps.recommended_max_memory()
            held = torch.mps.driver_allocated_memory()
            total, free = min(total, limit), min(free, max(0, limit - held))
        return MemoryInfo(total_bytes=total, free_bytes=free)

    def forget_freed(self) -> None:
        """Empty the allocator's cache, where it has one."""
        self._ask("empty_cache")

    def begin_peak(self) -> None:
        """Reset the allocator's peaks, where it has any."""
        self._ask("reset_peak_memory_stats", self.torch_device)

    def peak(self) -> AllocatorFigures | None:
        """The allocator's peaks; ``None`` where it counts none."""
        self._synchronize()
        return self._counted("max_memory")

    def held(self) -> AllocatorFigures | None:
        """What the allocator holds now; ``None`` where it does not count."""
        return self._counted("memory")

    def _counted(self, what: str) -> AllocatorFigures | None:
        if not self._ask("memory_stats", self.torch_device):
            return None
        names = ("allocated", "reserved")
        counts = {name: self._ask(f"{what}_{name}", self.torch_device) or 0 for name in names}
        return AllocatorFigures(**counts)

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

    def look(self) -> DeviceLook | None:
        """Not told."""
        return None

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


def any_in_use() -> bool:
    """Whether one of them may hold memory of this process: it is initialized, or does not say."""
    return any(_is_in_use(kind) for kind in _kinds())


def _is_in_use(kind: str) -> bool:
    module = getattr(torch, kind, None)
    if kind == "mps":
        return torch.mps.driver_allocated_memory() > 0
    is_initialized = getattr(module, "is_initialized", None)
    return is_initialized is None or bool(is_initialized())
