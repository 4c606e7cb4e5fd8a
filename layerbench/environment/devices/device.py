"""The interface of devices, and their common parts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from layerbench.environment.devices.clocks import Clock
from layerbench.records.conditions import DeviceLook
from layerbench.records.environment import DeviceInfo
from layerbench.records.memory import AllocatorFigures
from layerbench.records.workload import Frozen

if TYPE_CHECKING:
    import torch


class MemoryInfo(Frozen):
    """Bytes of memory that a run could have, and could still get."""

    total_bytes: int
    free_bytes: int


class Device(Protocol):
    """One device that a model can run on."""

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda``, ``xpu``, ``mps``, ..."""

    @property
    def torch_device(self) -> torch.device:
        """Where modules and tensors go."""

    def clock(self) -> Clock:
        """A fresh clock for this device."""

    def block_queue(self, seconds: float) -> bool:
        """Put work of about this length on the device's current queue: what follows waits there.

        It returns at once, and takes far less of the host's time than of the device's.

        Returns:
            whether the queue is held; False where that cannot be, or for more than a second.
        """

    def memory(self) -> MemoryInfo:
        """The memory there is now."""

    def begin_peak(self) -> None:
        """From now on `peak` counts anew."""

    def forget_freed(self) -> None:
        """Return the memory that PyTorch's allocator keeps for later to the device."""

    def peak(self) -> AllocatorFigures | None:
        """The largest bytes that PyTorch's allocator has allocated and reserved since `begin_peak`.

        ``None`` where the device's allocator does not count.
        """

    def held(self) -> AllocatorFigures | None:
        """The bytes that PyTorch's allocator has allocated and reserved now, as in `peak`."""

    def describe(self) -> DeviceInfo:
        """The device's description in records."""

    def look(self) -> DeviceLook | None:
        """Clock, power and temperature now; ``None`` where the device does not tell."""

    def other_processes(self) -> int | None:
        """Number of other processes on the device; ``None`` if it is unknown."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` means that memory ran out."""

    def requested_bytes(self, error: BaseException) -> int | None:
        """Bytes requested by the allocation that failed with ``error``, if it states them."""


class DeviceType(Protocol):
    """One kind of device, as a file of this folder offers it in its ``DEVICE_TYPES``."""

    @property
    def rank(self) -> int:
        """Kinds with a lower one are preferred when the user names none."""

    def names(self) -> list[str]:
        """The devices of this kind on this machine, such as ``["cuda:0", "cuda:1"]``."""

    def open(self, name: str) -> Device:
        """The device of one of `names`, or the present one for the kind's bare name."""


class Uncounted:
    """Mixed into a device whose allocator does not count its bytes."""

    def begin_peak(self) -> None:
        """Nothing to begin."""

    def forget_freed(self) -> None:
        """The allocator keeps nothing."""

    def peak(self) -> AllocatorFigures | None:
        """Not counted."""
        return None

    def held(self) -> AllocatorFigures | None:
        """Not counted."""
        return None


class MemoryErrors(ABC):
    """The out-of-memory errors of PyTorch's allocators; mixed into every device."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` means that memory ran out."""
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if not isinstance(error, RuntimeError):
            return False
        said = str(error)
        if any(phrase in said for phrase in _MEMORY_PHRASES):
            return True
        return any(phrase in said for phrase in _PERHAPS_MEMORY) and self._is_nearly_full()

    @abstractmethod
    def memory(self) -> MemoryInfo:
        """The memory there is now."""

    def _left_to_libraries(self) -> MemoryInfo:
        """The memory that does not go through PyTorch's allocator."""
        return self.memory()

    def _is_nearly_full(self) -> bool:
        try:
            left = self._left_to_libraries()
        except RuntimeError:  # a device that has failed answers nothing
            return False
        return left.free_bytes < NEARLY_FULL * left.total_bytes

    def requested_bytes(self, error: BaseException) -> int | None:
        """Bytes requested by the allocation that failed with ``error``, if it states them."""
        match = _REQUEST.search(str(error))
        if match is None:
            return None
        return round(float(match["amount"]) * _UNITS[match["unit"][0].lower()])


_MEMORY_PHRASES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",  # "CUDA error: ...", "MPS backend ...", "XPU ..."
    "ALLOC_FAILED",  # cuBLAS, and cuDNN before version 9
    "ALLOCATION_FAILED",  # cuDNN 9, of the host's memory and of the device's
    "OUT_OF_DEVICE_MEMORY",  # Level Zero
    "bad_alloc",
)
# What libraries say where they get no memory, and for other reasons, too.
_PERHAPS_MEMORY = (
    "STATUS_NOT_INITIALIZED",  # cuBLAS and cuDNN make a handle at the first call
    "unable to find an engine",  # cuDNN tried them, and none got its workspace
)
# Less than this share of the memory is left: they failed for want of it.
NEARLY_FULL = 0.05
# PyTorch counts in powers of 1024 whether it writes MB (MPS) or MiB.
_UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_REQUEST = re.compile(
    r"tried to allocate (?P<amount>\d+(?:\.\d+)?) ?(?P<unit>bytes|[KMGT]i?B)", re.IGNORECASE
)


def slug(name: str) -> str:
    """A name as part of a path: lower case, digits, hyphens.

    Example:
        >>> slug("NVIDIA H100 80GB HBM3")
        'nvidia-h100-80gb-hbm3'
    """
    return "-".join(re.findall(r"[a-z0-9]+", without_marks(name.lower()))) or "unknown"


def without_marks(name: str) -> str:
    """A lower-case name without ``(r)`` and ``(tm)``."""
    return re.sub(r"\((?:r|tm|c)\)", " ", name)
