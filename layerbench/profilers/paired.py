"""A live comparison: two workloads measured in alternation, in one process.

Whatever slows the machine for longer than a forward meets both alike, so that the ratio of the
two, taken round by round, is known far better than either time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from layerbench.environment.devices import Device
from layerbench.environment.precision import precision_set, switches_set
from layerbench.environment.run_context import (
    check_input_fits,
    garbage_collection_off,
    gradients_on,
    memory_explained,
    threads_set,
    watch_environment,
)
from layerbench.environment.watch import EnvironmentWatch
from layerbench.instruments.attach import mode_set
from layerbench.instruments.cuda_graph import check_graphs
from layerbench.instruments.placement import brought_back, can_move, move
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.warm_up import WarmingUp
from layerbench.profilers.progress import MEASURING, Progress, Silent
from layerbench.profilers.timing import Session, check_environment, preserved_or_built
from layerbench.records import samples
from layerbench.records.defaults import FEWEST_ROUNDS
from layerbench.records.samples import Run
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built

Kind = Literal["untouched", "instrumented"]

# After so many rounds, and forwards of the functions' pass, the weights move to another place: the
# more places the better is known what they do, and each costs two forwards of both models.
ROUNDS_IN_A_PLACE = 25
FUNCTION_FORWARDS_IN_A_PLACE = 3


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

    Each round runs both untouched and both instrumented, and what one forward draws of random
    numbers the three others draw, too. Which kind comes first alternates; which
    workload comes first is drawn by the first one's seed, so that no rhythm of the machine can
    favour one. The weights of both move in memory every `ROUNDS_IN_A_PLACE` rounds, so that no
    place can; those of a model that was handed over are brought back.

    Args:
        tasks: baseline and contender.
        subjects: models and inputs that were handed over; built from the workload if ``None``.
        contender_first: build the contender first: of two copies of one model a few small layers
            of the one built later have been seen 10 % faster for the whole of a process.
        progress: hears of each round.
        strict: refuse to measure on a machine that makes the numbers untrustworthy.

    Returns:
        one run for each, whose samples of one index are from the same round.

    Raises:
        LayerbenchError: as `layerbench.profilers.timing.measure`.
    """
    listener = progress or Silent()
    with ExitStack() as stack:
        watches = [_environment_watch(task) for task in tasks]
        for watch in watches:
            check_environment(watch, strict)
        pending = list(zip(tasks, subjects, strict=True))
        turn = -1 if contender_first else 1
        draws = RandomState()
        sides = [stack.enter_context(_side(*pair, listener, draws)) for pair in pending[::turn]][
            ::turn
        ]
        for side in sides:
            side.session.rounds.draws = sides[0].session.rounds.draws
        movable = all(map(_is_movable, sides))
        for side, subject in zip(sides, subjects, strict=True):
            if movable and subject is not None:
                stack.enter_context(brought_back(side.session.built.module))
        with garbage_collection_off():
            places = _run_rounds(
                sides, watches, tasks[0].plan, tasks[0].workload.seed, movable, listener
            )
            places |= _run_functions(sides, movable)
        first, second = (
            _placed(
                side.session.result(watch.finish(), "iterations", watch.conditions.looks), places
            )
            for side, watch in zip(sides, watches, strict=True)
        )
    return first, second


def _is_movable(side: _Side) -> bool:
    # What a compiler made of the model may have the addresses in it, and a graph has them.
    workload = side.task.workload
    return not workload.compile and not workload.cuda_graph and can_move(side.session.built.module)


def _placed(run: Run, places: dict[str, list[int]]) -> Run:
    """The run with the weights' place in each forward, for kinds with as many forwards."""
    arrays = {
        samples.PLACEMENT + kind: np.array(numbers, dtype=np.int64)
        for kind, numbers in places.items()
        if kind in run.arrays and len(run.arrays[kind]) == len(numbers)
    }
    return Run(run.facts, {**run.arrays, **arrays})


def _environment_watch(task: Task) -> EnvironmentWatch:
    """The surroundings, with the threads and the precision that this workload will have."""
    with (
        threads_set(task.plan.threads),
        precision_set(task.workload.precision, task.device),
    ):
        return watch_environment(task.device)


@dataclass(frozen=True)
class _Side:
    """A workload ready to be measured."""

    task: Task
    session: Session

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Threads, precision and gradients as this workload wants them: the other may differ."""
        training = self.task.workload.mode == "train"
        with (
            memory_explained(self.task.device),
            threads_set(self.task.plan.threads),
            switches_set(self.task.workload.precision),
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
                rounds.run_others()


@contextmanager
def _side(
    task: Task, subject: Built | None, progress: Progress, draws: RandomState
) -> Iterator[_Side]:
    """Build one side. Its first forward draws the same random numbers as the other's."""
    draws.put_back()
    training = task.workload.mode == "train"
    check_graphs(task.workload, task.device)
    if subject is None:
        check_input_fits(task.workload, task.device)
    with ExitStack() as building:
        building.enter_context(memory_explained(task.device))
        building.enter_context(threads_set(task.plan.threads))
        building.enter_context(precision_set(task.workload.precision, task.device))
        preparing = preserved_or_built(task.workload, task.device, subject)
        with preparing as built, mode_set(built.module, training):
            with gradients_on(training):
                session = Session(task.workload, task.plan, task.device, built, progress)
            building.close()
            yield _Side(task, session)


def _run_rounds(
    sides: list[_Side],
    watches: list[EnvironmentWatch],
    plan: Plan,
    seed: int,
    movable: bool,
    progress: Progress,
) -> dict[str, list[int]]:
    """Run all rounds; where the weights lay in each, by the kind of forward."""
    draw = random.Random(seed)
    _warm_up(sides, watches, plan.warmup, draw, progress)
    places: list[int] = []
    place = 0
    for done in range(plan.iterations):
        progress.step(MEASURING, done, plan.iterations)
        for watch in watches:
            watch.conditions.take()
        if movable and is_time_to_move(done, plan.iterations):
            place += 1
            _move(sides, place)
        _round(sides, done, draw)
        places.append(place)
    return {samples.UNTOUCHED: places, samples.INSTRUMENTED: places}


def _warm_up(
    sides: list[_Side],
    watches: list[EnvironmentWatch],
    rounds: int,
    draw: random.Random,
    progress: Progress,
) -> None:
    """Run rounds that are not kept, until both devices are warm."""
    warming = [WarmingUp(side.task.device, rounds) for side in sides]
    while not all(one.is_over for one in warming):
        progress.step("warm-up", warming[0].done, max(one.total for one in warming))
        _round(sides, warming[0].done, draw)
        for side, one in zip(sides, warming, strict=True):
            one.add(side.session.rounds.untouched[-1])
    for side, watch, one in zip(sides, watches, warming, strict=True):
        side.session.rounds.forget()
        watch.conditions.add_warm_up(one.taken)


def is_time_to_move(done: int, rounds: int) -> bool:
    """Whether the weights move before the next round, ``done`` of so many rounds being over."""
    # A place of a few rounds only would tell nothing.
    return done > 0 and done % ROUNDS_IN_A_PLACE == 0 and rounds - done >= FEWEST_ROUNDS


def _move(sides: list[_Side], number: int) -> None:
    """Give both models' weights another place, and run both once: what was moved is in no cache.

    Which moves first alternates: the second may get what the first has left.
    """
    for side in sides if number % 2 else reversed(sides):
        with memory_explained(side.task.device), torch.no_grad():
            move(side.session.built.module)
    draws = RandomState()
    for side in sides:
        draws.put_back()
        with side.turn():
            side.session.rounds.renew_inputs()
            side.session.rounds.call()


def round_order(number: int, draw: random.Random) -> Iterator[tuple[Kind, int]]:
    """The four forwards of a round: each one's kind and side.

    Args:
        number: of the round; the kinds take turns at being first.
        draw: says which of the two is first.
    """
    kinds: tuple[Kind, ...] = ("untouched", "instrumented")
    for kind in kinds if number % 2 == 0 else reversed(kinds):
        for side in draw.sample((0, 1), 2):
            yield kind, side


def _round(sides: list[_Side], number: int, draw: random.Random) -> None:
    draws = sides[0].session.rounds.draws
    draws.begin()
    for kind, side in round_order(number, draw):
        draws.put_back()
        sides[side].run(kind)
    draws.end()


def _run_functions(sides: list[_Side], movable: bool) -> dict[str, list[int]]:
    """The pass that times functions: in turn, too, each first in every second round."""
    forwards = [_function_forwards(side) for side in sides]
    places: list[int] = []
    done, place = 0, 0
    while True:
        ran = [next(one, False) for one in (forwards if done % 2 == 0 else reversed(forwards))]
        if not any(ran):
            return {samples.FUNCTIONS: places}
        places.append(place)
        done += 1
        if movable and all(ran) and done % FUNCTION_FORWARDS_IN_A_PLACE == 0:
            place += 1
            _move(sides, place)


def _function_forwards(side: _Side) -> Iterator[bool]:
    """``True`` after each forward, run on the threads and with the gradients of this side."""
    forwards = side.session.function_forwards()
    while True:
        with side.turn():
            if next(forwards, forwards) is forwards:
                return
        yield True
