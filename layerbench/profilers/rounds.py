"""The rounds of a measurement: the forward untouched and instrumented, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from layerbench.analysis.statistics import Resampler, relative_half_width
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.blocks import BlockView, find_blocks
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.layer_timer import (
    Folded,
    LayerTimer,
    TimedForward,
    arrays_of,
    notes_on_threads,
    run_untouched,
)
from layerbench.instruments.modules import Call, CallFacts, ModuleFacts
from layerbench.instruments.random_state import SameDraws
from layerbench.instruments.rows import notes_on_calls
from layerbench.instruments.waiting import wait_arrays, wait_meter
from layerbench.instruments.warm_up import WarmingUp
from layerbench.profilers.progress import MEASURING, Progress
from layerbench.records import samples
from layerbench.records.conditions import WarmUp
from layerbench.records.defaults import CAP_FACTOR
from layerbench.records.samples import RowFacts, Samples
from layerbench.records.timing import StopReason
from layerbench.records.workload import Plan

# A run that goes on until its interval is narrow looks again after this many rounds.
LOOK_EVERY = 25


@dataclass(frozen=True)
class Layers:
    """Which modules are timed.

    Attributes:
        modules: those with rows, in the order of the samples' columns; the root is first.
        with_functions: paths of those whose own functions get rows.
        view: the block view.
        timer: measures them.
        clock: that of the timer.
    """

    modules: tuple[ModuleFacts, ...]
    with_functions: frozenset[str]
    view: BlockView
    timer: LayerTimer
    clock: Clock

    @classmethod
    def of(
        cls,
        model: nn.Module,
        modules: Sequence[ModuleFacts],
        observed: Mapping[str, CallFacts],
        plan: Plan,
        clock: Clock,
    ) -> Layers:
        """Of the modules that were observed running, those that the plan's granularity asks for."""
        view = find_blocks(model).seen_running(observed)
        composite = {fact.path for fact in modules if fact.composite} | {""}
        if plan.granularity == "blocks":
            shown = view.blocks | view.opened
            modules = [fact for fact in modules if fact.path in shown]
            composite &= view.opened
        paths = [fact.path for fact in modules]
        timed = frozenset(fact.path for fact in modules if fact.reachable)
        direct = frozenset(path for path, calls in observed.items() if calls.direct)
        timer = LayerTimer(model, paths, timed, clock, called_directly=direct)
        return cls(tuple(modules), frozenset(composite), view, timer, clock)


@dataclass
class Rounds:
    """Runs the forward untouched and instrumented, in alternating order, and keeps the samples."""

    call: Call
    layers: Layers | None
    clock: Clock
    progress: Progress
    renew_inputs: Callable[[], object] = lambda: None
    untouched: list[int] = field(default_factory=list)
    host: list[int] = field(default_factory=list)
    forwards: list[TimedForward] = field(default_factory=list)
    marks: int = 0
    waits: dict[str, list[int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.meter = wait_meter(self.clock)
        self.draws = SameDraws()

    @property
    def in_python(self) -> Call:
        """Runs the model's own code, where `call` may not."""
        return self.call

    def warm_up(self, rounds: int, device: Device) -> WarmUp | None:
        """Run rounds that are not kept, on the very model that will be measured.

        Args:
            rounds: as many on a CPU; on an accelerator at least as many, until its clock is up.
            device: where it runs.

        Returns:
            what it took on an accelerator.
        """
        warming = WarmingUp(device, rounds)
        while not warming.is_over:
            self.progress.step("warm-up", warming.done, warming.total)
            self._round(warming.done)
            warming.add(self.untouched[-1])
        self.forget()
        return warming.taken

    def forget(self) -> None:
        """Throw away the samples so far: they were the warm-up's."""
        self.untouched.clear()
        self.host.clear()
        self.forwards.clear()
        self.waits.clear()

    def run(self, plan: Plan, seed: int) -> StopReason:
        """Run the planned rounds, and more if the plan asks for a narrow interval."""
        self._rounds(plan.iterations, plan.iterations)
        if plan.until is None:
            return "iterations"
        cap = max(plan.max_iterations or CAP_FACTOR * plan.iterations, plan.iterations)
        while self._half_width(seed) > plan.until:
            if len(self.untouched) >= cap:
                return "cap"
            self._rounds(min(LOOK_EVERY, cap - len(self.untouched)), cap)
        return "until"

    def _rounds(self, count: int, total: int) -> None:
        for _ in range(count):
            self.progress.step(MEASURING, len(self.untouched), total)
            self._round(len(self.untouched))

    def _round(self, number: int) -> None:
        # Alternating order: whatever a forward leaves behind for the next one (caches, clock
        # rates, a garbage heap) meets both kinds alike.
        kinds = (self.run_untouched, self.run_instrumented)
        self.draws.begin()
        for run in kinds if number % 2 == 0 else reversed(kinds):
            self.draws.put_back()
            run()
        self.run_others()
        self.draws.end()

    def run_others(self) -> None:
        """Forwards that disturb the next ones most, and whose time is compared with none."""

    def run_untouched(self) -> None:
        """One forward with nothing attached."""
        self.renew_inputs()
        self.meter.begin()
        device, host = run_untouched(self.call, self.clock)
        self.note_wait(samples.UNTOUCHED)
        self.untouched.append(device)
        if host is not None:
            self.host.append(host)

    def run_instrumented(self) -> None:
        """One forward with the layers timed, if the plan times layers."""
        if self.layers is None:
            return
        self.renew_inputs()
        self.meter.begin()
        forward = self.layers.timer.run(self.call, self.marks)
        self.note_wait(samples.INSTRUMENTED)
        self.marks = max(self.marks, 2 * int(forward.device.calls.sum()))
        self.forwards.append(forward)

    def note_wait(self, kind: str) -> None:
        """Keep what the forward just run waited for a core."""
        self.waits.setdefault(kind, []).append(self.meter.end())

    def keep_whole(self) -> bool:
        """Leave out a round that was not finished; whether any is left."""
        kinds = self._kinds()
        rounds = min(map(len, kinds))
        for kept in kinds:
            del kept[rounds:]
        return rounds > 0

    def _kinds(self) -> list[list[Any]]:
        """The samples of which each round has one."""
        kinds: list[list[Any]] = [self.untouched, self.waits.get(samples.UNTOUCHED, [])]
        if self.host:
            kinds.append(self.host)
        if self.layers is not None:
            kinds += [self.forwards, self.waits.get(samples.INSTRUMENTED, [])]
        return kinds

    def _half_width(self, seed: int) -> float:
        times = np.array(self.untouched, dtype=np.float64)
        return relative_half_width(times, Resampler([len(times)], seed=seed))

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and what could not be timed."""
        if self.layers is None or not self.forwards:
            return []
        paths = [fact.path for fact in self.layers.modules]
        threads = notes_on_threads(paths, self.layers.timer.recording.elsewhere)
        return [*threads, *self._note_on_calls(rows)]

    def _note_on_calls(self, rows: Sequence[RowFacts]) -> tuple[str, ...]:
        return notes_on_calls(rows, np.stack([f.device.calls for f in self.forwards]))

    def added_up(self) -> Sequence[Folded | KernelForward]:
        """The forwards whose layers were timed, each added up per module."""
        return [forward.device for forward in self.forwards]

    def facts(self) -> dict[str, Any]:
        """Fields of `layerbench.records.samples.RunFacts` that only some devices have."""
        return {}

    def absent(self) -> dict[str, str]:
        """What these rounds could not measure, and why."""
        return {}

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward] | None:  # noqa: ARG002
        """What the rounds showed of functions, for modules of these paths.

        ``None`` where they have to be timed in a pass of their own.
        """
        return None

    def with_shares(self, functions: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The functions' rows with how much of their time is shared, where kernels are fused."""
        return functions

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows with what the device ran for them, where that is seen."""
        return rows

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        arrays = {samples.UNTOUCHED: np.array(self.untouched, dtype=np.int64)}
        if self.host:
            arrays[samples.HOST + samples.UNTOUCHED] = np.array(self.host, dtype=np.int64)
        return {**arrays, **arrays_of(self.forwards), **wait_arrays(self.waits)}
