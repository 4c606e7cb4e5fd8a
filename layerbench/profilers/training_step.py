"""A training profile: steps untouched and instrumented, in alternation."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from layerbench.analysis import disturbance
from layerbench.analysis.views import with_training_memory
from layerbench.environment.collection import no_collection
from layerbench.environment.devices import Device
from layerbench.environment.precision import precision_set
from layerbench.environment.run_context import (
    check_input_fits,
    garbage_collection_off,
    memory_explained,
    raise_model_error,
    threads_set,
    watch_environment,
)
from layerbench.errors import LayerbenchError, UntrustedError
from layerbench.instruments.attach import notes_on_modes
from layerbench.instruments.kernel_timer import sees_kernels, why_unseen
from layerbench.instruments.modules import CallObserver, module_facts, without_reach
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.rows import observed_rows
from layerbench.instruments.step_events import StepEventTimer
from layerbench.instruments.step_kernels import KernelStep, StepKernelTimer
from layerbench.instruments.step_timer import StepTimer, TimedStep
from layerbench.instruments.waiting import wait_meter
from layerbench.instruments.warm_up import WarmingUp
from layerbench.profilers.blocked_queue import BLOCKED_EVERY, BlockedQueue
from layerbench.profilers.choice_of_rounds import clock_for
from layerbench.profilers.memory.measured import profile_memory, profile_memory_on_fakes
from layerbench.profilers.optimizers import check_optimizer
from layerbench.profilers.own_step import OwnStep, own_step
from layerbench.profilers.progress import MEASURING, Looking, Progress, Silent
from layerbench.profilers.timing import check_environment
from layerbench.profilers.training_step_record import Steps, record_of
from layerbench.records.conditions import WarmUp
from layerbench.records.memory import Optimizer
from layerbench.records.samples import RowFacts
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Plan, Workload
from layerbench.units import NANOSECOND
from layerbench.zoo import Built

Made = TypeVar("Made")


def profile_step(
    workload: Workload,
    plan: Plan,
    device: Device,
    *,
    optimizer: Optimizer = "sgd",
    subject: Built | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> TrainingProfile:
    """Measure training steps of one workload in this process.

    The batch is the workload's input, fetched from memory and copied anew for every step.

    Args:
        workload: what trains; its mode must be ``train``.
        plan: warm-up and measured rounds, threads; each round runs an untouched and an
            instrumented step.
        device: where it trains.
        optimizer: one of `layerbench.profilers.optimizers.OPTIMIZERS`.
        subject: a model and its inputs that were handed over; they come back as they were.
        progress: hears of each round.
        strict: refuse to measure on a machine that makes the numbers untrustworthy.

    Raises:
        ModelRunError: the model does not take the input, or cannot be trained.
        NotEnoughMemory: with the bytes requested and free.
        UsageError: no such optimizer.
        UntrustedError: ``strict``, and something is wrong with the machine.
    """
    check_optimizer(optimizer)
    with (
        threads_set(plan.threads),
        precision_set(workload.precision, device),
        memory_explained(device),
        no_collection(),
    ):
        watch = watch_environment(device)
        check_environment(watch, strict)
        if subject is None:
            check_input_fits(workload, device)
        with own_step(workload, device, optimizer, subject) as own:
            trained = _Trained(own, device)
            rounds = _Rounds(trained, Looking(progress or Silent(), watch.conditions), device)
            with garbage_collection_off():
                watch.conditions.add_warm_up(rounds.run(plan))
            broken = own.not_finite()
        record = record_of(
            workload,
            plan,
            optimizer,
            trained.rows,
            rounds.steps,
            watch.finish(),
            (*own.notes, *trained.notes, *([broken] if broken else [])),
            trained.events,
        )
        if strict and (busy := disturbance.too_busy(record)):
            raise UntrustedError(f"--strict: {busy}")
    # What holds the model refers to itself: without a collection its memory would stay taken.
    del own, trained, rounds
    gc.collect()
    return _with_memory(record, optimizer, device, subject)


def _with_memory(
    record: TrainingProfile, optimizer: Optimizer, device: Device, subject: Built | None
) -> TrainingProfile:
    """Add what a step's tensors hold, by phase and by module.

    A model given by name is weighed without taking memory; one handed over, in two more steps.
    """
    workload = record.workload
    try:
        if subject is None:
            report = profile_memory_on_fakes(workload, optimizer, record.environment)
        else:
            report = profile_memory(workload, device, optimizer=optimizer, subject=subject)
    except LayerbenchError as error:
        note = f"memory could not be worked out: {error}"
        return record.model_copy(update={"notes": (*record.notes, note)})
    return with_training_memory(record, report)


class _Trained:
    """A model with its optimizer, and what one forward showed of it."""

    def __init__(self, own: OwnStep, device: Device) -> None:
        self._own = own
        self.model = own.model
        self._device = device
        self.facts = module_facts(self.model)
        self.notes = notes_on_modes(self.model, True)
        self.rows = self._observed()
        paths = [fact.path for fact in self.facts]
        reachable = frozenset(fact.path for fact in self.facts if fact.reachable)
        self.clock = device.clock()
        self._bare = StepTimer((), {}, len(paths), self.clock)
        self._kernels: StepKernelTimer | None = None
        self.events: StepEventTimer | None = None
        self.why_no_kernels = ""
        # What the host takes is told apart from what the device takes, without events.
        clock = clock_for(self.clock)
        if clock is not self.clock and sees_kernels(device):
            self._kernels = StepKernelTimer(self.model, paths, reachable, device)
        elif clock is not self.clock:
            self.why_no_kernels = why_unseen(device)
            self.events = StepEventTimer(self.model, paths, reachable, device)
        self._timer = StepTimer.of_modules(self.model, paths, reachable, clock)

    def _observed(self) -> tuple[RowFacts, ...]:
        observer = CallObserver(self.model, self.facts)
        args, kwargs = self._own.inputs()
        try:
            call_facts = observer.observe(self._own.forward, args, kwargs)
        except Exception as error:
            raise_model_error(
                error, self._device, f"{self._own.workload.model}: {observer.explain(error)}"
            )
        self.facts = without_reach(self.facts, self.model, observer.compiled)
        return observed_rows(self.model, self.facts, call_facts)

    def untouched(self) -> TimedStep:
        """A step with nothing attached."""
        return self._own.explaining(self._bare.untouched)

    def instrumented(self) -> TimedStep:
        """A step with its modules timed on the host's clock."""
        step = self._own.explaining(self._timer.instrumented)
        self.clock.synchronize()
        return step

    @property
    def has_queue(self) -> bool:
        """Whether `profiled` can be asked for."""
        return self._kernels is not None or self.events is not None

    def profiled(self) -> KernelStep:
        """A step whose kernels are seen, or with events in their place."""
        if self._kernels is not None:
            return self._own.explaining(self._kernels.run)
        assert self.events is not None
        if not self.events.has_run:
            # The first is the one that is observed, which is no sample.
            draws = RandomState()
            self._own.explaining(self.events.run)
            self.events.forget()
            draws.put_back()
        return self._own.explaining(self.events.run)


@dataclass
class _Rounds:
    """Steps untouched, instrumented and profiled, in alternating order; some are blocked."""

    trained: _Trained
    progress: Progress
    device: Device
    steps: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        self._meter = wait_meter(self.trained.clock)
        self._behind = BlockedQueue(self.device, "step")

    def run(self, plan: Plan) -> WarmUp | None:
        """Run the warm-up and the rounds; gives what the warm-up took."""
        warming = WarmingUp(self.device, plan.warmup)
        while not warming.is_over:
            self.progress.step("warm-up", warming.done, warming.total)
            self._round(warming.done)
            warming.add(sum(self.steps.untouched[-1].phases_ns))
        self.steps = Steps()
        if self.trained.events is not None:
            self.trained.events.forget()
        for done in range(plan.iterations):
            self.progress.step(MEASURING, done, plan.iterations)
            self._round(done)
        if self.trained.has_queue:
            self.steps.why_no_kernels = self.trained.why_no_kernels
            self.steps.why_not_blocked = self._behind.why_not(bool(self.steps.blocked))
        return warming.taken

    def _round(self, number: int) -> None:
        draws = RandomState()
        kinds = [self._run_untouched, self._run_instrumented]
        if self.trained.has_queue:
            kinds.append(self._run_profiled)
            if number % BLOCKED_EVERY == 0 and not self._behind.is_given_up:
                kinds.append(self._run_blocked)
        for run in kinds if number % 2 == 0 else self._the_other_way(kinds):
            draws.put_back()
            run()

    def _the_other_way(self, kinds: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        """In reverse; on an accelerator, steps that are not kept come before the host's times.

        The profiler, and marks, leave cold caches behind, in which the host launches more slowly.
        """
        *others, instrumented, untouched = reversed(kinds)
        if not self.trained.has_queue:
            return [*others, instrumented, untouched]
        return [*others, self._run_unkept, instrumented, self._run_unkept, untouched]

    def _run_unkept(self) -> None:
        self.trained.untouched()

    def _run_untouched(self) -> None:
        self._meter.begin()
        step = self.trained.untouched()
        self.steps.waits.append(self._meter.end())
        self.steps.untouched.append(step)

    def _run_instrumented(self) -> None:
        self.steps.instrumented.append(self.trained.instrumented())

    def _run_profiled(self) -> None:
        self.steps.profiled.append(self.trained.profiled())

    def _run_blocked(self) -> None:
        earlier = [sum(step.host_phases_ns or ()) for step in self.steps.untouched]
        launching_s = float(np.median(earlier)) * NANOSECOND if earlier else 0.0
        taken = self._behind.run(launching_s, self._both_clocks)
        if taken is not None:
            self.steps.blocked.append(taken)

    def _both_clocks(self) -> tuple[int, int | None]:
        """What an untouched step took on the device's clock and on the host's."""
        step = self.trained.untouched()
        host = step.host_phases_ns
        return sum(step.phases_ns), None if host is None else sum(host)
