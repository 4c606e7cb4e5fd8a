"""How long gradients were on their way: told by marks of two queues."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from layerbench.environment.devices.clocks import DeviceEvents
from layerbench.training.classification import distributed
from layerbench.training.classification.distributed import AllReduceTimer


class Queues:
    """A device with a queue for work and one on which gradients arrive; nanoseconds."""

    def __init__(self) -> None:
        self.ends = {"work": 0, "arrivals": 0}
        self.current = "work"


class FakeEvent:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._at = 0

    def record(self, queue: object, /) -> None:
        self._at = self._queues.ends[str(queue)]

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end_event: FakeEvent, /) -> float:
        return (end_event._at - self._at) / 1e6


def test_what_arrives_on_another_queue_is_marked_there(monkeypatch) -> None:
    queues, done = Queues(), []
    clock = DeviceEvents(lambda: FakeEvent(queues), lambda: None, lambda: queues.current)
    future: Any = SimpleNamespace(then=done.append)
    monkeypatch.setattr(
        distributed.distributed,
        "all_reduce",
        lambda *_, **__: SimpleNamespace(get_future=lambda: future),
    )
    ranks: Any = SimpleNamespace(count=2)
    timer = AllReduceTimer(nn.Linear(1, 1), ranks, clock, asked=True)
    timer._is_timed = True  # as it is for a model on several ranks
    arrived: Any = SimpleNamespace(value=lambda: [torch.ones(1)])
    for on_its_way in (300, 500):
        queues.current = "work"
        queues.ends["work"] += 1_000
        timer._hook(None, SimpleNamespace(buffer=lambda: torch.ones(1)))
        queues.current = "arrivals"
        queues.ends["arrivals"] = queues.ends["work"] + on_its_way
        queues.ends["work"] += 10_000
        done.pop()(arrived)
        timer.end_step()
    assert timer.take() == [300, 500]
