"""The recipe of a live comparison: two workloads measured in turn, in one process.

Whatever slows the machine for longer than a forward meets both alike, so that the ratio of the
two, taken round by round, is known far better than either time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from layerbench.devices import Device
from layerbench.environment import RoomWatch
from layerbench.guards import (
    garbage_collection_off,
    gradients_on,
    memory_explained,
    refuse_too_large,
    threads_set,
    watch_room,
)
from layerbench.instruments.attach import mode_set
from layerbench.progress import Progress, Silent
from layerbench.runner import Session, preserved_or_built, refuse_bad_room
from layerbench.samples import Run
from layerbench.workload import Plan, Workload
from layerbench.zoo import Built

Kind = Literal["untouched", "instrumented"]


@dataclass(frozen=True)
class Task:
    """One of the two: what runs, how, and where.

    Both must have as many warm-up and measured rounds; a plan's ``processes`` and ``until`` are
    not looked at.
    """

    workload: Workload
    plan: Plan
    device: Device


def measure_pair(
    tasks: tuple[Task, Task],
    *,
    subjects: tuple[Built | None, Built | None] = (None, None),
    contender_first: bool = False,
    progress: Progress | None = None,
    strict: bool = False,
) -> tuple[Run, Run]:
    """Measure two workloads, forward by forward in turn.

    Each round runs both untouched and both instrumented. Which kind comes first alternates; which
    workload comes first is drawn by the first one's seed, so that no rhythm of the machine can
    favour one.

    Args:
        tasks: baseline and contender.
        subjects: models and inputs that were handed over; built from the workload if ``None``.
        contender_first: build the contender first: of two copies of one model a few small layers
            of the one built later have been seen 10 % faster for the whole of a process.
        progress: hears of each round.
        strict: refuse to measure in a room that makes the numbers untrustworthy.

    Returns:
        one run for each, whose samples of one index are from the same round.

    Raises:
        LayerbenchError: as `layerbench.runner.measure`.
    """
    listener = progress or Silent()
    with ExitStack() as stack:
        rooms = [_room(task) for task in tasks]
        for room in rooms:
            refuse_bad_room(room, strict)
        pending = list(zip(tasks, subjects, strict=True))
        turn = -1 if contender_first else 1
        sides = [stack.enter_context(_side(*pair, listener)) for pair in pending[::turn]][::turn]
        with garbage_collection_off():
            _run_rounds(sides, tasks[0].plan, tasks[0].workload.seed, listener)
            _run_functions(sides)
        first, second = (
            side.session.result(room.finish(), "iterations")
            for side, room in zip(sides, rooms, strict=True)
        )
    return first, second


def _room(task: Task) -> RoomWatch:
    """The surroundings, with the threads that this workload will have."""
    with threads_set(task.plan.threads):
        return watch_room(task.device)


@dataclass(frozen=True)
class _Side:
    """A workload ready to be measured."""

    task: Task
    session: Session

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Threads and gradients as this workload wants them; the other may want others."""
        training = self.task.workload.mode == "train"
        with (
            memory_explained(self.task.device),
            threads_set(self.task.plan.threads),
            gradients_on(training),
        ):
            yield

    def run(self, kind: Kind) -> None:
        rounds = self.session.rounds
        with self.turn():
            if kind == "untouched":
                rounds.run_untouched()
            else:
                rounds.run_instrumented()


@contextmanager
def _side(task: Task, subject: Built | None, progress: Progress) -> Iterator[_Side]:
    training = task.workload.mode == "train"
    refuse_too_large(task.workload, task.device, subject)
    with ExitStack() as building:
        building.enter_context(memory_explained(task.device))
        building.enter_context(threads_set(task.plan.threads))
        preparing = preserved_or_built(task.workload, task.device, subject)
        with preparing as built, mode_set(built.module, training):
            with gradients_on(training):
                session = Session(task.workload, task.plan, task.device, built, progress)
            building.close()
            yield _Side(task, session)


def _run_rounds(sides: list[_Side], plan: Plan, seed: int, progress: Progress) -> None:
    draw = random.Random(seed)
    for done in range(plan.warmup):
        progress.step("warm-up", done, plan.warmup)
        _round(sides, done, draw)
    for side in sides:
        side.session.rounds.forget()
    for done in range(plan.iterations):
        progress.step("measuring", done, plan.iterations)
        _round(sides, done, draw)


def _round(sides: list[_Side], number: int, draw: random.Random) -> None:
    kinds: tuple[Kind, ...] = ("untouched", "instrumented")
    for kind in kinds if number % 2 == 0 else reversed(kinds):
        for side in draw.sample(sides, len(sides)):
            side.run(kind)


def _run_functions(sides: list[_Side]) -> None:
    """The pass that times functions, in turn too."""

    def in_turn(side: _Side) -> Iterator[None]:
        forwards = side.session.function_forwards()
        while True:
            with side.turn():
                if next(forwards, forwards) is forwards:
                    return
            yield

    for _ in zip_longest(*map(in_turn, sides)):
        pass
