"""When a process of its own appears in nvidia-smi's list: before it has a context, or with it.

To be run in a process that has not touched the device yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.step import Figures, Settings
from layerbench.environment.devices import Device
from layerbench.environment.machine import run_and_read

QUERY = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]


@dataclass
class Moment:
    """What was told at one moment.

    Attributes:
        when: in words.
        listed: nvidia-smi's lines; ``None`` where it cannot be asked.
        own: whether this process is among them.
        others: layerbench's own count of the other processes on the device; ``None`` where it
            does not know.
        reserved: bytes that PyTorch's allocator holds; ``None`` where it is not told.
    """

    when: str
    listed: list[str] | None
    own: bool | None
    others: int | None
    reserved: int | None


@dataclass
class Processes(Figures):
    """Moments in order."""

    pid: int = 0
    moments: list[Moment] = field(default_factory=list)

    def headline(self) -> str:
        """When this process was listed."""
        told = [moment for moment in self.moments if moment.own is not None]
        if not told:
            return "nvidia-smi's list of processes cannot be asked here"
        first = next((moment.when for moment in told if moment.own), None)
        counts = ", ".join("unknown" if m.others is None else str(m.others) for m in self.moments)
        listed = f"listed from '{first}' on" if first else "never listed under its own number"
        return f"this process is {listed}; layerbench counts others: {counts}"

    def table(self) -> list[list[str]]:
        """A row a moment."""
        header = ["when", "nvidia-smi lists", "own process", "others, by layerbench", "reserved"]
        return [
            header,
            *(
                [
                    moment.when,
                    "-" if moment.listed is None else "; ".join(moment.listed) or "nothing",
                    {None: "-", True: "yes", False: "no"}[moment.own],
                    "unknown" if moment.others is None else str(moment.others),
                    "-" if moment.reserved is None else str(moment.reserved),
                ]
                for moment in self.moments
            ),
        ]


def run(settings: Settings) -> Iterator[Processes]:
    """Look, do a little more on the device, look again."""
    figures = Processes(pid=os.getpid())
    figures.moments.append(_moment("nothing done yet", None, figures.pid))
    device = settings.opened()

    def look(when: str) -> Processes:
        figures.moments.append(_moment(when, device, figures.pid))
        return figures

    yield look("after PyTorch was asked for the device")
    read = getattr(getattr(torch, device.kind, None), "get_device_properties", None)
    if read is None:
        figures.absent["get_device_properties"] = f"torch has none for {device.kind}"
    else:
        read(device.torch_device)
        yield look("after get_device_properties")
    tensor = torch.ones(1024, device=device.torch_device)
    device.clock().synchronize()
    yield look("after a first tensor")
    del tensor
    device.forget_freed()
    yield look("after it was freed")


def _moment(when: str, device: Device | None, pid: int) -> Moment:
    """What is told now; without a device, by nvidia-smi alone, which changes nothing."""
    printed = run_and_read(QUERY)
    lines = None if printed is None else [line.strip() for line in printed.splitlines()]
    own = None if lines is None else any(line.partition(",")[0] == str(pid) for line in lines)
    if device is None:
        return Moment(when, lines, own, None, None)
    return Moment(when, lines, own, device.other_processes(), _reserved(device))


def _reserved(device: Device) -> int | None:
    if device.kind != "cuda" or not torch.cuda.is_initialized():
        return None
    return torch.cuda.memory_reserved(device.torch_device)
