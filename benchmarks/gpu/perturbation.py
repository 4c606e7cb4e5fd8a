"""Whether an untouched forward takes as long among the other rounds as among its like."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from layerbench import zoo
from layerbench.analysis.statistics import Resampler, paired_ratio
from layerbench.environment.devices import Device
from layerbench.environment.run_context import garbage_collection_off, gradients_on
from layerbench.instruments.attach import mode_set
from layerbench.profilers.progress import Silent
from layerbench.profilers.rounds import Rounds
from layerbench.profilers.timing import Session
from layerbench.records.workload import Plan, Workload
from layerbench.zoo.family import on_device

WARMUP = 10

Interval = tuple[float, float, float]
"""A ratio and the bounds of its 95 % interval."""


@dataclass(frozen=True)
class Perturbation:
    """An untouched forward among the other rounds over one among its like.

    Attributes:
        time: on the device's clock.
        host: in processor time of the thread that launches, which other programs change less.
    """

    time: Interval
    host: Interval


@dataclass
class _Stretches:
    """Medians of stretches of untouched forwards: of their time, and of their processor time."""

    times: list[float] = field(default_factory=list)
    hosts: list[float] = field(default_factory=list)


def perturbation(workload: Workload, device: Device, stretches: int, forwards: int) -> Perturbation:
    """Measure stretches of either kind in turn in one process: both meet the same machine.

    Args:
        workload: what runs.
        device: where.
        stretches: of each kind.
        forwards: untouched ones in a stretch; their medians count.
    """
    alone, among = _Stretches(), _Stretches()
    built = on_device(zoo.build(workload), device.torch_device)
    with mode_set(built.module, False), gradients_on(False):
        rounds = Session(workload, Plan(), device, built, Silent()).rounds
        spent = _processor_times(rounds)

        def stretch(kept: _Stretches, run: Callable[[int], object]) -> None:
            rounds.forget()
            spent.clear()
            for number in range(forwards):
                run(number)
            kept.times.append(statistics.median(rounds.untouched))
            kept.hosts.append(statistics.median(spent))

        with garbage_collection_off():
            rounds.warm_up(WARMUP, device)
            for _ in range(stretches):
                stretch(alone, lambda _: rounds.run_untouched())
                stretch(among, rounds._round)
    return Perturbation(
        time=_ratio(among.times, alone.times), host=_ratio(among.hosts, alone.hosts)
    )


def _processor_times(rounds: Rounds) -> list[float]:
    """A list that gets the processor time of each untouched forward from now on, seconds.

    Forwards that are run before one and not kept have no place in it.
    """
    spent: list[float] = []
    call, run_untouched = rounds.call, rounds.run_untouched
    last = 0.0

    def timed() -> object:
        nonlocal last
        begin = time.thread_time()
        output = call()
        last = time.thread_time() - begin
        return output

    def untouched() -> None:
        rounds.call = timed
        try:
            run_untouched()
        finally:
            rounds.call = call
        spent.append(last)

    vars(rounds)["run_untouched"] = untouched
    return spent


def _ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    resampler = Resampler([len(numerator)])
    return paired_ratio(np.array(numerator), np.array(denominator), resampler)
