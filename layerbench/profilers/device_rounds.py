"""Rounds on an accelerator: what it needs and what launching costs, each in rounds of its own.

An event in the device's queue takes as long as a small kernel, and a mark in Python longer than
launching one. So four kinds of forwards take turns (docs/decisions/0034):

untouched
    nothing attached; two events and the host's clock around the whole.
blocked
    the same while the queue is held until all work waits in it: what the device needs.
host
    marks on the host's clock at each module, and no event.
device
    under the profiler, which sees every kernel on the device's clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from layerbench.environment.devices import Device
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.layer_timer import Folded, TimedForward, run_untouched
from layerbench.instruments.modules import Call
from layerbench.profilers.blocked_queue import BLOCKED_EVERY, BlockedQueue
from layerbench.profilers.kernel_samples import (
    device_arrays,
    function_forwards,
    kernel_facts,
    with_kernels,
)
from layerbench.profilers.rounds import Rounds
from layerbench.records import samples
from layerbench.records.samples import RowFacts, Samples
from layerbench.units import NANOSECOND

SEVERAL_DEVICES = (
    "kernels ran on several devices: rows have those of all, the whole is on the clock of one"
)

# So many forwards after one of another kind the host is as fast as among its like, or after so
# long: what caches hold of a long forward does not come from the one before.
AFTER_PROFILER = 5
AFTER_MARKS = 1
SETTLED_AFTER_S = 0.02


class Tracer(Protocol):
    """Times the layers on the device."""

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:
        """Run one forward and add up what the device did; ``shapes`` of functions are noted."""


@dataclass
class BlockedRounds(Rounds):
    """As `Rounds`, of the whole alone, with what the device needs for it.

    Attributes:
        device: where the model runs.
        blocked: nanoseconds of the blocked whole, for those rounds that have one.
    """

    device: Device = field(kw_only=True)
    blocked: list[int] = field(default_factory=list)
    _turns: int = 0
    _unsettled: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._behind = BlockedQueue(self.device, "forward")

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.blocked.clear()
        self._turns = 0

    def run_untouched(self) -> None:
        """One forward with nothing attached, after as many that are not kept as it needs."""
        self.settle()
        super().run_untouched()

    def run_instrumented(self) -> None:
        """Nothing is attached to the model."""

    def run_others(self) -> None:
        """Now and then a forward behind a blocked queue."""
        if self._is_blocked_next():
            self.draws.put_back()
            self.renew_inputs()
            self._run_blocked()

    def _is_blocked_next(self) -> bool:
        self._turns += 1
        return self._turns % BLOCKED_EVERY == 1 and not self._behind.is_given_up

    def settle(self) -> None:
        """Run forwards that are not kept, as many as what ran before asks for.

        Without them those that are compared took 1 to 8 % longer than among their like
        (`benchmarks.simulated`).
        """
        if not self._unsettled:
            return
        begin = time.perf_counter()
        for _ in range(self._unsettled):
            self.renew_inputs()
            self._run_unkept()
            if time.perf_counter() - begin > SETTLED_AFTER_S:
                break
        self.draws.put_back()
        self._unsettled = 0

    def _run_unkept(self) -> None:
        self.call()
        self.clock.synchronize()

    def _run_blocked(self) -> None:
        self._unsettled = max(self._unsettled, AFTER_MARKS)
        launching_s = float(np.median(self.host)) * NANOSECOND if self.host else 0.0
        taken = self._behind.run(launching_s, lambda: run_untouched(self.call, self.clock))
        if taken is not None:
            self.blocked.append(taken)

    def absent(self) -> dict[str, str]:
        """Why the whole was not measured behind a blocked queue."""
        why = self._behind.why_not(bool(self.blocked))
        return {samples.BLOCKED_QUEUE: why} if why else {}

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        arrays = super().arrays()
        if self.blocked:
            arrays[samples.BLOCKED] = np.array(self.blocked, dtype=np.int64)
        return arrays


@dataclass
class DeviceRounds(BlockedRounds):
    """With the layers' times on the device and on the host from separate forwards.

    Attributes:
        tracer: runs the device rounds, and sees the kernels.
        traced: the device rounds.
        instrumented: nanoseconds of the whole in the host rounds, on the device's clock.
    """

    tracer: Tracer = field(kw_only=True)
    traced: list[KernelForward] = field(default_factory=list)
    instrumented: list[int] = field(default_factory=list)

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.traced.clear()
        self.instrumented.clear()

    def run_instrumented(self) -> None:
        """A forward with marks on the host."""
        self.settle()
        self.renew_inputs()
        self._run_host()

    def run_others(self) -> None:
        """Now and then a forward behind a blocked queue, and one under the profiler."""
        super().run_others()
        self.draws.put_back()
        self.renew_inputs()
        self._run_device()

    def _run_host(self) -> None:
        """A forward with marks, after one that is not kept.

        What the profiler does, and attaching, leave cold caches behind, in which the host takes
        longer to launch (`benchmarks.simulated`).
        """
        clock, marks = self.clock, list[int]()
        clock.reserve(2)

        def unkept() -> None:
            self._run_unkept()
            self.draws.put_back()
            self.renew_inputs()
            self.meter.begin()

        def mark() -> None:
            marks.append(clock.mark())

        def whole() -> None:
            mark()
            self.call()

        # The second event lies outside the host's time of the whole, as in an untouched forward.
        forward = self._time_host(whole, unkept, mark)
        self._unsettled = AFTER_MARKS
        self.note_wait(samples.INSTRUMENTED)
        clock.synchronize()
        try:
            first, last = clock.resolve(marks)
        finally:
            clock.release()
        self.forwards.append(forward)
        self.instrumented.append(last - first)

    def _time_host(self, whole: Call, first: Call, last: Call) -> TimedForward:
        """Run a forward with marks, between two others of which none are kept."""
        assert self.layers is not None
        return self.layers.timer.run(whole, 0, first, last)

    def _run_device(self) -> None:
        # Noting shapes takes the host longer: once is enough, for the functions' rows.
        self._unsettled = AFTER_PROFILER
        self.traced.append(self.tracer.run(self.call, shapes=not self.traced))

    def _kinds(self) -> list[list[Any]]:
        return [*super()._kinds(), self.traced, self.instrumented]

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and what is not the device's alone."""
        several = any(traced.devices > 1 for traced in self.traced)
        return [*super().notes(rows), *([SEVERAL_DEVICES] if several else [])]

    def added_up(self) -> Sequence[Folded | KernelForward]:
        """The device rounds."""
        return self.traced

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward]:
        """The device rounds as forwards of a functions' pass, for modules of these paths."""
        return function_forwards(self.traced, self._paths(), with_rows)

    def _paths(self) -> list[str]:
        assert self.layers is not None
        return [fact.path for fact in self.layers.modules]

    def facts(self) -> dict[str, Any]:
        """What the rows of kernels are, in the order of the samples' columns."""
        return {"kernels": kernel_facts(self.traced, self._paths()), "device_times": "kernels"}

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows with the number of their kernels in one forward."""
        return with_kernels(rows, self.traced)

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        arrays = super().arrays()
        for name in (samples.INCLUSIVE, samples.SELF):
            arrays[samples.HOST + name] = arrays.pop(name)
        arrays[samples.HOST + samples.INSTRUMENTED] = arrays[samples.INSTRUMENTED]
        arrays[samples.INSTRUMENTED] = np.array(self.instrumented, dtype=np.int64)
        return {**arrays, **self._device_arrays()}

    def _device_arrays(self) -> dict[str, Samples]:
        return device_arrays(self.traced)
