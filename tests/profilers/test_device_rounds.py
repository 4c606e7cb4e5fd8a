"""Rounds on an accelerator, with kernels of known lengths and a queue of a known clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench.environment.devices.clocks import PerfCounter
from layerbench.instruments.kernels import HostEvent, Kernel, KernelForward, added_up
from layerbench.instruments.modules import CallObserver, module_facts
from layerbench.profilers.blocked_queue import (
    BLOCKED_EVERY,
    CANNOT_BLOCK,
    HELD_TOO_SHORTLY,
    WAITS,
)
from layerbench.profilers.device_rounds import AFTER_MARKS, AFTER_PROFILER, DeviceRounds
from layerbench.profilers.progress import Silent
from layerbench.profilers.rounds import Layers
from layerbench.records.samples import KernelFacts
from layerbench.records.workload import Plan

DEVICE_NS, HOST_NS = 700, 300


class QueueClock:
    """Each mark is 700 ns after the one before on the device, and 300 on the host."""

    def __init__(self, host_ns: int = HOST_NS) -> None:
        self._host_ns = host_ns
        self._marks = count()

    def mark(self) -> int:
        return next(self._marks)

    def reserve(self, marks: int) -> None: ...

    def synchronize(self) -> None: ...

    def release(self) -> None: ...

    def resolve(self, marks: Sequence[int]) -> list[int]:
        return [mark * DEVICE_NS for mark in marks]

    def resolve_host(self, marks: Sequence[int]) -> list[int]:
        return [mark * self._host_ns for mark in marks]


class Queue:
    """A device whose queue can be held, or not."""

    kind = "sim"
    torch_device = torch.device("cpu")

    def __init__(self, *, holds: bool) -> None:
        self._holds = holds
        self.held: list[float] = []

    def block_queue(self, seconds: float) -> bool:
        self.held.append(seconds)
        return self._holds


class Tracer:
    """Runs the model, and says that the device worked 500 ns for its first layer and 30 itself."""

    def run(self, call: Callable[[], Any], **_: Any) -> KernelForward:
        call()
        host = [
            HostEvent("layerbench:0", 1, 1, 0, 90),
            HostEvent("layerbench:1", 2, 1, 10, 50),
            HostEvent("aten::linear", 3, 1, 20, 40),
            HostEvent("aten::add", 4, 1, 60, 70),
        ]
        kernels = [Kernel("gemm", 3, 100, 600), Kernel("sum", 4, 620, 650)]
        return added_up(host, kernels, modules=2)


class Added(nn.Module):
    """A layer, and an addition of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 1


def rounds(queue: Queue, clock: QueueClock) -> DeviceRounds:
    model, x = Added(), torch.rand(2, 4)
    facts = module_facts(model)
    observed = CallObserver(model, facts).observe(model, (x,), {})
    layers = Layers.of(model, facts, observed, Plan(), PerfCounter())
    return DeviceRounds(
        lambda: model(x),
        layers,
        clock,  # type: ignore[arg-type]
        Silent(),
        device=queue,  # type: ignore[arg-type]
        tracer=Tracer(),  # type: ignore[arg-type]
    )


def test_each_kind_of_round_has_samples_of_its_own() -> None:
    queue = Queue(holds=True)
    measured = rounds(queue, QueueClock())
    measured.run(Plan(iterations=10), seed=0)
    arrays = measured.arrays()
    # Of the device: the kernels' times. Of the host: its clock's, whatever they are.
    assert arrays["inclusive"].tolist() == [[530, 500]] * 10
    assert arrays["self"].tolist() == [[30, 500]] * 10
    assert arrays["span"].tolist() == [550] * 10
    assert arrays["idle"].tolist() == [20] * 10
    assert arrays["kernels"].tolist() == [[500, 30]] * 10
    assert np.all(arrays["host_inclusive"][:, 0] > arrays["host_inclusive"][:, 1])
    assert arrays["untouched"].tolist() == arrays["instrumented"].tolist() == [DEVICE_NS] * 10
    assert arrays["host_untouched"].tolist() == [HOST_NS] * 10
    assert arrays["blocked"].tolist() == [DEVICE_NS] * (10 // BLOCKED_EVERY)
    assert measured.facts() == {
        "device_times": "kernels",
        "kernels": (
            KernelFacts(module="layer", function="linear", name="gemm", calls=1),
            KernelFacts(module="", function="add", name="sum", calls=1),
        ),
    }
    assert measured.absent() == {}


def test_functions_are_the_operators_that_launched_kernels() -> None:
    measured = rounds(Queue(holds=True), QueueClock())
    measured.run(Plan(iterations=2), seed=0)
    forwards = measured.functions(frozenset({""}))
    assert [(f.module, f.name, f.calls) for f in forwards[0].facts] == [("", "add", 1)]
    assert [forward.times_ns for forward in forwards] == [(30,), (30,)]
    assert forwards[0].module_order == {"": 0, "layer": 1}


def test_a_queue_that_is_empty_before_all_work_is_in_it_tells_nothing() -> None:
    """The host needs longer than the queue was held: each time it is held for longer."""

    class Slower(QueueClock):
        def resolve_host(self, marks: Sequence[int]) -> list[int]:
            return [mark * HOST_NS * 10 ** len(queue.held) for mark in marks]

    queue = Queue(holds=True)
    measured = rounds(queue, Slower())
    measured.run(Plan(iterations=30), seed=0)
    assert "blocked" not in measured.arrays()
    assert measured.absent() == {"blocked queue": WAITS.format(what="forward")}
    assert len(queue.held) == 3


def test_a_host_that_is_disturbed_now_and_then_does_not_wait() -> None:
    class Disturbed(QueueClock):
        def resolve_host(self, marks: Sequence[int]) -> list[int]:
            slow = 10_000 if len(queue.held) % 2 == 0 else 1
            return [mark * HOST_NS * slow for mark in marks]

    queue = Queue(holds=True)
    measured = rounds(queue, Disturbed())
    measured.host += [HOST_NS] * 1000  # what launching takes as a rule
    measured.run(Plan(iterations=50), seed=0)
    assert len(queue.held) == 10
    assert measured.arrays()["blocked"].tolist() == [DEVICE_NS] * 5
    assert measured.absent() == {}


def test_where_no_hold_was_long_enough_the_record_says_so() -> None:
    class Slow(QueueClock):
        def resolve_host(self, marks: Sequence[int]) -> list[int]:
            return [mark * HOST_NS * 10 ** len(queue.held) for mark in marks]

    queue = Queue(holds=True)
    measured = rounds(queue, Slow())
    measured.run(Plan(iterations=2), seed=0)
    assert "blocked" not in measured.arrays()
    assert measured.absent() == {"blocked queue": HELD_TOO_SHORTLY}


def test_a_queue_that_cannot_be_held_is_not_tried_again() -> None:
    queue = Queue(holds=False)
    measured = rounds(queue, QueueClock())
    measured.run(Plan(iterations=11), seed=0)
    assert measured.absent() == {"blocked queue": CANNOT_BLOCK}
    assert len(queue.held) == 1


def test_a_round_that_was_not_finished_is_left_out() -> None:
    measured = rounds(Queue(holds=True), QueueClock())
    measured.run(Plan(iterations=3), seed=0)
    measured.run_untouched()
    assert measured.keep_whole()
    assert {len(measured.arrays()[name]) for name in ("untouched", "inclusive", "span")} == {3}


def test_forwards_that_are_not_kept_stand_before_the_hosts_times_and_untouched_ones() -> None:
    """Else what follows would find the caches as the profiler, or the marks, have left them."""
    measured = rounds(Queue(holds=True), QueueClock())
    kinds: list[str] = []
    within: dict[str, list[int]] = {"_run_host": [], "run_untouched": []}  # forwards in each
    call, tracer = measured.call, measured.tracer

    def told(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def told_run(*args: Any, **kwargs: Any) -> Any:
            kinds.append(name)
            before = len(kinds)
            output = run(*args, **kwargs)
            if name in within:
                within[name].append(len(kinds) - before)
            del kinds[before:]  # the forwards within it
            return output

        return told_run

    measured.call = told("not kept", call)
    tracer.run = told("device", tracer.run)  # type: ignore[method-assign]
    for name in ("run_untouched", "_run_host", "_run_blocked"):
        vars(measured)[name] = told(name, getattr(measured, name))
    for number in range(3):
        measured._round(number)
    first = ["run_untouched", "_run_host", "_run_blocked", "device"]
    second = [*["not kept"] * AFTER_PROFILER, "_run_host", "run_untouched", "device"]
    assert kinds == [*first, *second, "run_untouched", "_run_host", "device"]
    # Each itself, and those before it.
    assert within["_run_host"] == [2, 2, 2]
    assert within["run_untouched"] == [1, AFTER_MARKS + 1, AFTER_PROFILER + 1]
