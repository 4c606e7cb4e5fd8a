"""Timing events of a device, of whichever kind works there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from layerbench.environment.devices.clocks import Event


def event_maker(
    device: torch.device,
    own: Callable[..., Any] | None,
    queue: Callable[[], object],
    synchronize: Callable[[], object],
) -> Callable[[], Event] | None:
    """Makes timing events of a device; ``None`` where it has none that work.

    `torch.Event` is tried first: recording one that is told its queue takes the host a tenth of a
    microsecond. The backends' own take a microsecond and more, as they look for the device and the
    queue in Python.

    Args:
        device: where events are recorded.
        own: the backend's class of events, if it has one.
        queue: gives the device's current queue.
        synchronize: waits for the device.
    """
    for make in _makers(device, own, queue):
        try:
            start, end = make(), make()
            for event in (start, end):
                event.record(queue())
            synchronize()
            start.elapsed_time(end)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            continue
        return make
    return None


def _makers(
    device: torch.device, own: Callable[..., Any] | None, queue: Callable[[], object]
) -> Iterable[Callable[[], Any]]:
    # It takes whatever it is given for a stream, and reads beyond the end of what is none.
    if hasattr(torch, "Event") and isinstance(queue(), (torch.Stream, type(None))):
        yield partial(torch.Event, device=device, enable_timing=True)
    if own is not None:
        yield partial(own, enable_timing=True)
        yield partial(_WithoutQueue, own)


class _WithoutQueue:
    """An event that cannot be told a queue, such as those of MPS, which has one only."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._event = make(enable_timing=True)
        self.query = self._event.query
        self.synchronize = self._event.synchronize

    def record(self, _queue: object, /) -> None:
        self._event.record()

    def elapsed_time(self, end_event: Any, /) -> float:  # noqa: ANN401 - of this class
        elapsed: float = self._event.elapsed_time(end_event._event)
        return elapsed
