"""The record of training steps that their user's own loop ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from layerbench import units
from layerbench.analysis.views import with_training_memory
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.instruments.memory_attribution import Holding
from layerbench.instruments.step_loop import LoopPhases
from layerbench.instruments.step_timer import TimedStep
from layerbench.profilers.training_step_record import Steps, record_of
from layerbench.profilers.user_loop_record import Moment, environment_of
from layerbench.records.samples import RowFacts
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Plan, StepOptions, Workload
from layerbench.units import NANOSECOND

NO_LOADER = (
    "no torch.utils.data.DataLoader was seen to give a batch: the phase data holds all from the "
    "end of one step to the forward of the next"
)
UPDATES_WITHIN = "the optimizer updates within another phase, whose time holds that"
EVALUATED = (
    "all forwards of the model ran in evaluation mode or without gradients, which is no training: "
    "call train() of the model before"
)
NOT_CALLED = (
    "call the model itself, inside the block; where the loop calls several, give them as one: "
    "torch.nn.ModuleList([generator, adversary])"
)
NO_WHOLE_STEP = (
    "no whole step was seen, with a forward of the model, a backward and an update of the "
    "optimizer; give the optimizer that the loop uses, and call step() after it"
)
TOO_FEW = (
    "after those that pass before, at least three steps are needed, one to look at and two to "
    "time, each with an update of an optimizer that was given"
)
BY_EVENTS = (
    "steps of a user's own loop do not run under the profiler: times of layers are between events "
    "in the device's queue, and hold what it waited for the host"
)
# Beside more of the loop's other work than this share of a step, a wait for a core may be its.
MOST_BETWEEN = 0.1
_NAMES: tuple[tuple[type[Optimizer], str], ...] = (
    (torch.optim.AdamW, "adamw"),
    (torch.optim.Adam, "adam"),
    (torch.optim.RMSprop, "rmsprop"),
    (torch.optim.Adagrad, "adagrad"),
)


@dataclass
class SeenSteps:
    """What the loop's steps showed.

    Attributes:
        warmup: steps before those whose times count.
        untouched: phases, the step, and nanoseconds for which it waited for a core.
        instrumented: phases and the step.
        forwards: of the model that trained; ``evaluated``: the others.
        broken: steps in which something raised, or that were none.
        memory: what the step that was looked at held.
        absent: what was not measured, and why.
    """

    warmup: int
    workload: Workload | None = None
    rows: tuple[RowFacts, ...] = ()
    untouched: list[tuple[LoopPhases, TimedStep, int | None]] = field(default_factory=list)
    instrumented: list[tuple[LoopPhases, TimedStep]] = field(default_factory=list)
    forwards: int = 0
    evaluated: int = 0
    broken: int = 0
    began: Moment | None = None
    ended: Moment | None = None
    device: Device | None = None
    conditions: ConditionsWatch | None = None
    notes: tuple[str, ...] = ()
    memory: Holding | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def add_untouched(self, phases: LoopPhases, waited: int | None) -> None:
        """Note a step with marks between its phases alone."""
        step = TimedStep(phases.phases_ns, micro_batches_ns=phases.micro_batches_ns)
        self.untouched.append((phases, step, waited))

    @property
    def micro_batches(self) -> int:
        """Of a step: the most common number."""
        every = [*self._numbers(self.untouched), *self._numbers(self.instrumented)]
        return Counter(every).most_common(1)[0][0] if every else 0

    @property
    def rounds(self) -> int:
        """Pairs of steps with the most common number of micro-batches."""
        count = self.micro_batches
        kinds = (self.untouched, self.instrumented)
        return min(self._numbers(kind).count(count) for kind in kinds)

    @staticmethod
    def _numbers(steps: Sequence[tuple[Any, ...]]) -> list[int]:
        return [len(one[0].micro_batches_ns) for one in steps]


def record_of_loop(seen: SeenSteps, optimizers: Sequence[Optimizer]) -> TrainingProfile:
    """The record of what has been seen so far, at least one pair of steps.

    Args:
        seen: of the loop.
        optimizers: that updated the model.
    """
    assert seen.workload is not None
    assert seen.began is not None
    assert seen.device is not None
    assert seen.conditions is not None
    count, rounds = seen.micro_batches, seen.rounds
    untouched = [one for one in seen.untouched if len(one[0].micro_batches_ns) == count][:rounds]
    instrumented = [one for one in seen.instrumented if len(one[0].micro_batches_ns) == count]
    steps = Steps(
        untouched=[step for _, step, _ in untouched],
        instrumented=[step for _, step in instrumented[:rounds]],
        waits=[_believed(phases, waited) for phases, _, waited in untouched],
    )
    environment = environment_of(
        seen.began, seen.ended or Moment.now(), seen.device, seen.conditions
    )
    record = record_of(
        seen.workload.with_step(StepOptions(gradient_accumulation=count)),
        Plan(warmup=seen.warmup, iterations=rounds, function_iterations=0),
        name_of(optimizers),
        seen.rows,
        steps,
        environment,
        (*_notes(seen, [phases for phases, _, _ in untouched]), *seen.notes),
    )
    if seen.memory is not None:
        record = with_training_memory(record, seen.memory)
    absent = dict(seen.absent)
    if seen.device.clock().resolve_host([]) is not None:
        absent["kernels"] = BY_EVENTS
    if not any(phases.fetched for phases, *_ in seen.untouched):
        absent["copy"] = NO_LOADER
    if _updates_within(seen) and not any(phases.optimizer_ns for phases, *_ in seen.untouched):
        absent["optimizer"] = UPDATES_WITHIN
    shown = tuple(phase for phase in record.phases if phase.name not in absent)
    return record.model_copy(update={"phases": shown, "absent": {**record.absent, **absent}})


def _updates_within(seen: SeenSteps) -> bool:
    """Whether the time of updates is that of other phases."""
    return any("update" in phases.within for phases, *_ in seen.untouched)


def _believed(phases: LoopPhases, waited: int | None) -> int | None:
    step = sum(phases.phases_ns)
    return None if phases.between_ns > MOST_BETWEEN * step else waited


def _notes(seen: SeenSteps, phases: Sequence[LoopPhases]) -> list[str]:
    between = float(np.median([one.between_ns for one in phases])) * NANOSECOND
    notes = [
        "the steps are those of the user's own loop, each with a batch of its own; between two of "
        f"them it took {units.seconds(between)} (median) for other work, which is part of none"
    ]
    if any(one.fetched for one in phases):
        notes.append("the phase copy holds all from a batch's arrival to the forward")
    if _updates_within(seen):
        notes.append(UPDATES_WITHIN)
    measured = len(seen.untouched) + len(seen.instrumented)
    left = measured - 2 * len(phases)
    if left + seen.broken:
        notes.append(
            f"{left + seen.broken} of the {measured + seen.broken} steps do not count: something "
            "raised in them, they had another number of micro-batches, or none to compare with"
        )
    return notes


def name_of(optimizers: Sequence[Optimizer]) -> str:
    """As `layerbench.records.memory.Optimizer` has it, or the class where that is another."""
    return "+".join(dict.fromkeys(map(_name_of, optimizers)))


def _name_of(optimizer: Optimizer) -> str:
    # Exactly, as a class of somebody's own that derives from one may do anything.
    if type(optimizer) is torch.optim.SGD:
        return "momentum" if any(group["momentum"] for group in optimizer.param_groups) else "sgd"
    named = dict(_NAMES)
    return named.get(type(optimizer), type(optimizer).__name__)
