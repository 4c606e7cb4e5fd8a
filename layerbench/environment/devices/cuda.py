"""NVIDIA GPUs, and AMD's through ROCm, which PyTorch calls ``cuda`` too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import psutil
import torch

from layerbench.environment.devices.blocking import QueueBlocker
from layerbench.environment.devices.clocks import DeviceEvents
from layerbench.environment.devices.device import (
    Device,
    DeviceType,
    MemoryErrors,
    MemoryInfo,
    slug,
)
from layerbench.environment.devices.nvml import NvmlGpu, open_gpu
from layerbench.environment.devices.timing_events import event_maker
from layerbench.environment.machine import run_and_read
from layerbench.errors import DeviceUnavailable
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import DeviceInfo
from layerbench.records.memory import AllocatorFigures

cuda: Any = torch.cuda  # most of it is not typed

# The fields of nvidia-smi, with their name and unit in the record. Not the clock itself, which is
# low before the run: `Cuda.look` tells it during the run.
_SMI_FIELDS = {
    "driver_version": ("driver", ""),
    "clocks.max.sm": ("highest SM clock", " MHz"),
    "clocks.mem": ("memory clock", " MHz"),
    "power.limit": ("power limit", " W"),
    "persistence_mode": ("persistence mode", ""),
    "mig.mode.current": ("MIG", ""),
}
# What nvidia-smi prints where it knows no such GPU.
_NONE_THERE = "No devices were found"


class Cuda(MemoryErrors):
    """One GPU.

    Args:
        index: PyTorch's number for it, after ``CUDA_VISIBLE_DEVICES``.
    """

    kind = "cuda"

    def __init__(self, index: int) -> None:
        self.index = index
        self.torch_device = torch.device("cuda", index)

    def clock(self) -> DeviceEvents:
        """Events on this GPU's queue, with the host's time beside them."""
        make_event = event_maker(self.torch_device, cuda.Event, self._queue, self._synchronize)
        if make_event is None:
            raise DeviceUnavailable(f"{self.torch_device} has no timing events: take --device cpu")
        return DeviceEvents(make_event, self._synchronize, self._queue)

    def _queue(self) -> object:
        return cuda.current_stream(self.index)

    def _synchronize(self) -> None:
        cuda.synchronize(self.index)

    def block_queue(self, seconds: float) -> bool:
        """Let the GPU spin for about so long before what is launched from now on."""
        with cuda.device(self.index):
            return self._blocker.block(seconds)

    @cached_property
    def _blocker(self) -> QueueBlocker:
        return QueueBlocker(self.clock(), cuda._sleep)

    def look(self) -> DeviceLook | None:
        """Clock, power and temperature now, by NVML, or else by PyTorch's own functions."""
        if self._nvml is not None:
            return self._nvml.look()
        with suppress(Exception):  # as many kinds of them as there are libraries, or none of them
            return DeviceLook(
                clock_hz=cuda.clock_rate(self.index) * 1e6,
                power_w=cuda.power_draw(self.index) / 1e3,
                temperature_c=float(cuda.temperature(self.index)),
            )
        return None

    @cached_property
    def _nvml(self) -> NvmlGpu | None:
        return open_gpu(_smi_ids(cuda.get_device_properties(self.index)))

    def memory(self) -> MemoryInfo:
        """The GPU's memory; this process's reserve counts as free."""
        left, held = self._left_to_libraries(), self.held()
        reserve = held.reserved - held.allocated
        return MemoryInfo(total_bytes=left.total_bytes, free_bytes=left.free_bytes + reserve)

    def _left_to_libraries(self) -> MemoryInfo:
        free, total = cuda.mem_get_info(self.index)
        return MemoryInfo(total_bytes=total, free_bytes=free)

    def forget_freed(self) -> None:
        """Empty the allocator's cache."""
        cuda.empty_cache()

    def begin_peak(self) -> None:
        """Reset the allocator's peaks."""
        cuda.reset_peak_memory_stats(self.index)

    def peak(self) -> AllocatorFigures | None:
        """The caching allocator's peaks."""
        cuda.synchronize(self.index)
        return AllocatorFigures(
            allocated=cuda.max_memory_allocated(self.index),
            reserved=cuda.max_memory_reserved(self.index),
        )

    def held(self) -> AllocatorFigures:
        """What the caching allocator has handed out, and has taken from the driver."""
        return AllocatorFigures(
            allocated=cuda.memory_allocated(self.index),
            reserved=cuda.memory_reserved(self.index),
        )

    def describe(self) -> DeviceInfo:
        """Name, driver, clocks and power limit, if they can be read."""
        properties = cuda.get_device_properties(self.index)
        return DeviceInfo(
            kind=self.kind,
            name=properties.name,
            slug=slug(properties.name),
            memory_bytes=properties.total_memory,
            details={**_torch_details(properties), **smi_details(_smi_ids(properties))},
        )

    def other_processes(self) -> int | None:
        """Processes on the GPU except this one and its ancestors."""
        properties = cuda.get_device_properties(self.index)
        return count_others(
            _smi("--query-compute-apps=pid", _smi_ids(properties)),
            own=_own_processes(),
            present=self._is_in_use(),
        )

    def _is_in_use(self) -> bool:
        """Whether this process is among those that the driver lists for the GPU.

        PyTorch counts as initialized long before: to be asked for a GPU's name is enough.
        """
        return cuda.memory_reserved(self.index) > 0 or _has_context(self.index)


class CudaType:
    """The GPUs that PyTorch sees."""

    rank = 0

    def names(self) -> list[str]:
        """``cuda:0``, ``cuda:1``, ..."""
        if not cuda.is_available():
            return []
        return [f"cuda:{index}" for index in range(cuda.device_count())]

    def open(self, name: str) -> Device:
        """The GPU of this name; for ``cuda``, the current one."""
        _, colon, number = name.partition(":")
        return Cuda(int(number) if colon else cuda.current_device())


DEVICE_TYPES: tuple[DeviceType, ...] = (CudaType(),)


def _has_context(index: int) -> bool:
    """Whether the driver has something of this process on the GPU, be it no tensor."""
    ask = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    try:
        return ask is not None and bool(ask(index))
    except RuntimeError:
        return False


def _torch_details(properties: Any) -> dict[str, str]:  # noqa: ANN401 - torch's private class
    details = {
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": str(properties.multi_processor_count),
    }
    if torch.version.cuda:
        details["CUDA"] = torch.version.cuda
    if torch.version.hip:
        details["ROCm"] = torch.version.hip
    backends: Any = torch.backends
    cudnn = backends.cudnn.version()
    if cudnn:
        details["cuDNN"] = str(cudnn)
    return details


def _smi_ids(properties: Any) -> list[str]:  # noqa: ANN401 - torch's private class
    """The names that nvidia-smi may know the GPU by: it does not read ``CUDA_VISIBLE_DEVICES``.

    A slice of a GPU (MIG) has a number of the same kind, which nvidia-smi writes otherwise.
    """
    uuid = getattr(properties, "uuid", None)
    return [] if uuid is None else [f"GPU-{uuid}", f"MIG-{uuid}"]


def _smi(query: str, gpus: Sequence[str]) -> str | None:
    """What nvidia-smi answers for the first of these names that it knows."""
    for gpu in gpus:
        asked = ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id={gpu}"]
        printed = run_and_read(asked)
        if printed is not None and _NONE_THERE not in printed:
            return printed
    return None


def smi_details(gpus: Sequence[str]) -> dict[str, str]:
    """Driver, clocks and limits as nvidia-smi prints them; unknown ones are left out.

    Args:
        gpus: names that nvidia-smi may know the GPU by, see `_smi_ids`.
    """
    printed = _smi(f"--query-gpu={','.join(_SMI_FIELDS)}", gpus)
    return parse_smi(printed) if printed else {}


def parse_smi(line: str) -> dict[str, str]:
    """One line of nvidia-smi's comma-separated answer to the query of all `_SMI_FIELDS`."""
    answers = [answer.strip() for answer in line.split(",")]
    if len(answers) != len(_SMI_FIELDS):
        return {}
    return {
        name: f"{answer}{unit}"
        for (name, unit), answer in zip(_SMI_FIELDS.values(), answers, strict=True)
        if answer and not answer.startswith("[")  # [N/A], [Not Supported]
    }


def count_others(printed: str | None, own: set[int], present: bool) -> int | None:
    """Processes on a GPU that are not ours.

    Args:
        printed: nvidia-smi's process ids, one a line; ``None`` if it could not be asked.
        own: this process and those it descends from.
        present: whether this process uses the GPU already.

    Returns:
        Their number; ``None`` if it is unknown. In a container the ids may be the host's:
        then this process is among them under a number it does not know.
    """
    if printed is None:
        return None
    ids = {int(word) for word in printed.split() if word.isdigit()}
    if present and ids and not ids & own:
        return None
    return len(ids - own)


def _own_processes() -> set[int]:
    try:
        return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    except psutil.Error:
        return {os.getpid(), os.getppid()}
