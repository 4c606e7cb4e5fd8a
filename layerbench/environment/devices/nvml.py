"""What NVIDIA's driver tells of a GPU while it works, by its management library (NVML).

The library comes with the driver, and is called without a package of its own: a look takes some
tens of microseconds, where nvidia-smi takes a tenth of a second. Names and numbers are those of
``nvml.h``.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from layerbench.records.conditions import DeviceLook

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SUCCESS = 0
_SM_CLOCK = 1
_GPU_TEMPERATURE = 0
# nvmlClocksEventReasons. The others say that somebody has set the clock, or that nothing runs.
_SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class NvmlGpu:
    """One GPU.

    Args:
        library: NVML, initialized.
        handle: the library's own of the GPU.
    """

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:  # noqa: ANN401 - ctypes
        self._library = library
        self._handle = handle

    def look(self) -> DeviceLook:
        """The GPU now; what it does not tell is ``None``."""
        clock = self._read("nvmlDeviceGetClockInfo", _SM_CLOCK)
        highest = self._read("nvmlDeviceGetMaxClockInfo", _SM_CLOCK)
        power = self._read("nvmlDeviceGetPowerUsage")
        temperature = self._read("nvmlDeviceGetTemperature", _GPU_TEMPERATURE)
        return DeviceLook(
            clock_hz=None if clock is None else clock * 1e6,
            highest_clock_hz=None if highest is None else highest * 1e6,
            power_w=None if power is None else power / 1e3,
            temperature_c=None if temperature is None else float(temperature),
            slowed_by=self._slowed_by(),
        )

    def _slowed_by(self) -> tuple[str, ...]:
        reasons = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)
        return tuple(name for bit, name in _SLOWED.items() if bit & (reasons or 0))

    def _read(self, function: str, *arguments: int, kind: type[Any] = ctypes.c_uint) -> int | None:
        value = kind()
        try:
            call = getattr(self._library, function)
        except AttributeError:
            return None
        if call(self._handle, *arguments, ctypes.byref(value)) != _SUCCESS:
            return None
        return int(value.value)


def open_gpu(names: Iterable[str]) -> NvmlGpu | None:
    """The GPU of the first of these UUIDs that NVML knows; ``None`` without it or the library."""
    library = _library()
    if library is None:
        return None
    for name in names:
        handle = ctypes.c_void_p()
        found = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if found == _SUCCESS:
            return NvmlGpu(library, _whole(library, handle))
    return None


def _whole(library: Any, handle: ctypes.c_void_p) -> ctypes.c_void_p:  # noqa: ANN401 - ctypes
    """Of a part of a GPU (MIG), which has no clock of its own, the whole; else the same."""
    whole = ctypes.c_void_p()
    find = getattr(library, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", None)
    is_part = find is not None and find(handle, ctypes.byref(whole)) == _SUCCESS
    return whole if is_part else handle


@cache
def _library() -> Any | None:  # noqa: ANN401 - ctypes
    """NVML, initialized once; it stays so until the process ends."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == _SUCCESS else None
