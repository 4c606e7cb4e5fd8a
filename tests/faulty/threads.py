"""Forwards that work in threads: of a pool, of their own, and ones that were there before."""

from __future__ import annotations

import queue
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import torch
from torch import nn

from tests.faulty import Case

BRANCH = 2 * 32 * 64 * 64


class _TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)


class _InPool(_TwoBranches):
    def forward(self, x: torch.Tensor) -> Any:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda layer: layer(x), (self.a, self.b)))


class _InOtherPool(_TwoBranches):
    def forward(self, x: torch.Tensor) -> Any:
        with ThreadPool(2) as pool:
            return sum(pool.map(lambda layer: layer(x), (self.a, self.b)))


class _InThreads(_TwoBranches):
    """The products are functions: no module is called in the threads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: dict[int, torch.Tensor] = {}

        def run(number: int, layer: nn.Linear) -> None:
            made[number] = nn.functional.linear(x, layer.weight, layer.bias)

        threads = [
            threading.Thread(target=run, args=numbered) for numbered in enumerate((self.a, self.b))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return made[0] + made[1]


class _Worker:
    """A thread that waits for work; it ends with the process, and is there for all models."""

    def __init__(self) -> None:
        self.asked: queue.Queue[Any] = queue.Queue()
        self.answered: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            layer, x = self.asked.get()
            self.answered.put(layer(x))


_WORKERS: list[_Worker] = []


class _InThreadOfBefore(_TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        if not _WORKERS:
            _WORKERS.append(_Worker())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _WORKERS[0].asked.put((self.a, x))
        second = self.b(x)
        return _WORKERS[0].answered.get() + second


class _Forks(_TwoBranches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        future = torch.jit.fork(self.a, x)
        return torch.jit.wait(future) + self.b(x)


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(_Forks())


def _case(name: str, build: Any) -> Case:
    return Case(name, lambda: (build(), (torch.rand(32, 64),)), 8320, 2 * BRANCH)


CASES = [
    _case("branches in a pool of threads", _InPool),
    _case("branches in the other pool of threads", _InOtherPool),
    _case("functions in threads", _InThreads),
    _case("a branch in a thread that was there before", _InThreadOfBefore),
    _case("a scripted fork", _scripted),
]
