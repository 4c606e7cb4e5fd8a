"""A device's queue: the ways to put a timing event into it, and how long its work takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from layerbench.environment.devices import Device
from layerbench.units import NANOSECOND


@dataclass(frozen=True)
class Recording:
    """One way to put a timing event into the queue.

    Attributes:
        name: as it is written in Python.
        make: makes an event.
        record: gives, for an event, what records it.
    """

    name: str
    make: Callable[[], Any]
    record: Callable[[Any], Callable[[], object]]


def recordings(device: Device) -> Iterator[Recording]:
    """Every way that PyTorch has on this device; none on a CPU."""
    where = device.torch_device
    if where.type == "cpu":
        return
    module = getattr(torch, where.type, None)
    own = getattr(module, "Event", None)
    if own is not None:
        yield from _of_kind(
            f"torch.{where.type}.Event",
            partial(own, enable_timing=True),
            getattr(module, "current_stream", None),
            where,
        )
    general = getattr(torch, "accelerator", None)
    if hasattr(torch, "Event"):
        yield from _of_kind(
            "torch.Event",
            partial(torch.Event, device=where, enable_timing=True),
            getattr(general, "current_stream", None),
            where,
        )


def _of_kind(
    name: str, make: Callable[[], Any], stream_of: Callable[..., Any] | None, where: torch.device
) -> Iterator[Recording]:
    yield Recording(f"{name}.record()", make, lambda event: event.record)
    if stream_of is not None:
        # The stream is asked for once: to ask is most of what a record costs.
        stream = stream_of(where.index or 0)
        yield Recording(f"{name}.record(stream)", make, lambda event: partial(event.record, stream))


def waiter(device: Device) -> Callable[[], object]:
    """Waits until the device is idle."""
    return device.clock().synchronize


def span_s(device: Device, work: Callable[[], object]) -> float:
    """Seconds on the device's own clock from before some work to after it."""
    clock = device.clock()
    clock.reserve(2)
    first = clock.mark()
    work()
    last = clock.mark()
    clock.synchronize()
    start, end = clock.resolve([first, last])
    clock.release()
    return (end - start) * NANOSECOND


def host_s(work: Callable[[], object]) -> float:
    """Seconds of the host's clock until some work returns."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def hold(device: Device, seconds: float) -> None:
    """Keep the queue busy for about so long, so that what follows waits in it.

    Raises:
        NotImplementedError: nothing does that on this kind of device.
    """
    if not device.block_queue(seconds):
        raise NotImplementedError(f"nothing holds the queue of {device.kind}")
