"""How busy the machine is while something runs: looked at now and then by a thread of its own.

What a look costs (about a millisecond) falls into what is measured: a few looks a second disturb
nothing that can be seen.
"""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

import psutil
import torch

from layerbench.environment.devices import Device
from layerbench.environment.machine import usable_cores
from layerbench.errors import first_line
from layerbench.records.detection_run import Usage, UsageSample

# A record holds at most so many looks.
MOST_KEPT = 240


class UsageSampler:
    """Looks at the machine while a ``with`` block runs.

    Args:
        device: what the work runs on.
        interval_s: between looks.
        children: whether the processes that this one started count too; to find them, all
            processes of the machine are looked at.
    """

    def __init__(self, device: Device, interval_s: float = 0.5, *, children: bool = True) -> None:
        self._device = device
        self._interval_s = interval_s
        self._children = children
        self._samples: list[UsageSample] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="layerbench usage", daemon=True)
        self._process = psutil.Process()
        self._cores = usable_cores()
        self._no_device = "" if device.kind == "cpu" else _why_untold(device)

    def __enter__(self) -> UsageSampler:
        self._begins = self._before = time.perf_counter()
        self._spent = self._cpu_seconds()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if not self._samples:
            # Shorter than the time between looks: one look is better than none.
            with contextlib.suppress(Exception):
                self._samples.append(self._look())

    def usage(self) -> Usage:
        """What was seen, thinned out evenly."""
        every = -(-len(self._samples) // MOST_KEPT) or 1
        return Usage(
            interval_s=self._interval_s * every,
            cores=self._cores,
            samples=tuple(self._samples[::every]),
            no_device=self._no_device,
        )

    def _look_on(self) -> None:
        # The first call has nothing to compare with; psutil remembers by thread.
        psutil.cpu_percent()
        while not self._stopped.wait(self._interval_s):
            # A process that ends while it is looked at, or a driver that is busy, is no reason to
            # stop looking.
            with contextlib.suppress(Exception):
                self._samples.append(self._look())

    def _look(self) -> UsageSample:
        now, spent = time.perf_counter(), self._cpu_seconds()
        held = self._device.held()
        # A process seen for the first time brings all that it has spent so far.
        cores = min(max(0.0, spent - self._spent) / (now - self._before), self._cores)
        self._before, self._spent = now, spent
        return UsageSample(
            at_s=now - self._begins,
            process_cpu=cores,
            system_cpu=psutil.cpu_percent() / 100,
            resident=self._process.memory_info().rss,
            device=None if self._no_device else device_busy(self._device),
            allocated=None if held is None else held.allocated,
            reserved=None if held is None else held.reserved,
        )

    def _cpu_seconds(self) -> float:
        """Of this process and those that it started, as far as they are there."""
        total = 0.0
        started = self._process.children(recursive=True) if self._children else ()
        for process in (self._process, *started):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


def device_busy(device: Device) -> float | None:
    """Share of time in which a device worked recently, 0 to 1; ``None`` if it is unknown.

    NVML tells of the last sixth of a second to one second, whatever ran in it.
    """
    if device.kind != "cuda":
        return None
    try:
        return torch.cuda.utilization(device.torch_device) / 100
    except Exception:
        return None


def _why_untold(device: Device) -> str:
    if device.kind != "cuda":
        return f"how busy {device.kind} is, is not told"
    try:
        torch.cuda.utilization(device.torch_device)
    except ModuleNotFoundError as error:
        hint = "" if torch.version.hip else ": pip install nvidia-ml-py"
        return f"how busy the GPU is, is not told ({error}){hint}"
    except Exception as error:  # of the driver; a slice of a GPU (MIG) tells nothing, for one
        return f"how busy the GPU is, is not told ({first_line(error)})"
    return ""
