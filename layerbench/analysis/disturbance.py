"""Which times of a record hold what disturbed the host, and which what disturbed the device.

A host that waits for a core launches late. On a CPU that is in every time; a kernel takes as long
as ever. What else runs on an accelerator, and a clock that is low, are in the kernels' times, and
in none on the host's clock. No torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from layerbench.analysis.launching import APART, waiting_of
from layerbench.records import contention
from layerbench.records.contention import Holding
from layerbench.records.environment import Environment
from layerbench.records.timing import DeviceRounds, Profile

if TYPE_CHECKING:
    # Whose records are not looked at is not waited for.
    from layerbench.records.training_step import TrainingProfile


def holding(rounds: DeviceRounds | None, whole_s: float) -> Holding:
    """Which times hold the host's waits.

    Times by events do, too: they are the device's own only where its queue could be blocked.

    Args:
        rounds: what the device did in rounds of its own; ``None`` without.
        whole_s: the untouched whole, on the device's clock.
    """
    if rounds is None or rounds.how != "kernels":
        return "every"
    waiting = waiting_of(rounds, whole_s)
    return "host" if waiting is not None and waiting <= APART else "launching"


def held_in(record: Profile | TrainingProfile) -> Holding:
    """The same of a record."""
    whole = record.whole if isinstance(record, Profile) else record.step
    return holding(record.device_rounds, whole.median)


def too_busy(record: Profile | TrainingProfile) -> str:
    """Why times of a record mean nothing, which, and what to do; empty where all do mean it."""
    machine, held = record.environment.machine, held_in(record)
    if held == "every":
        return machine.too_busy
    return contention.too_busy(machine.waits, machine.threads, held)


def is_void(record: Profile | TrainingProfile) -> bool:
    """Whether no time of a record means anything."""
    return bool(too_busy(record)) and held_in(record) == "every"


def of_device(environment: Environment) -> str:
    """Why times on an accelerator tell nothing; empty where they do, and on a CPU."""
    if environment.device.kind == "cpu":
        return ""
    return contention.shared(environment.machine.other_processes_on_device)


def clocks_apart(baseline: Environment, contender: Environment) -> float:
    """How far the clocks of one accelerator lay apart in two measurements, as a logarithm.

    0 where neither was low, where they are not told, and between different accelerators.
    """
    sides = (baseline, contender)
    seen = [side.conditions for side in sides if side.conditions is not None]
    clocks = [one.clock_median_hz for one in seen if one.clock_median_hz]
    if baseline.device.name != contender.device.name or len(clocks) != len(sides):
        return 0.0
    if not any(one.warning for one in seen):
        return 0.0
    return abs(math.log(clocks[0] / clocks[1]))
