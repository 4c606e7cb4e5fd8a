"""Settings of the loader tried in short measured stretches of the real training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerbench.profilers.progress import Progress
from layerbench.records.detection_run import TunePoint, Tuning
from layerbench.records.training_step import STEP_PHASES
from layerbench.training import step_statistics
from layerbench.training.detection.step import Stepped
from layerbench.units import NANOSECOND

# The smallest setting whose throughput is so near to the best is taken: a process costs memory.
WITHIN = 0.03
PREFETCH = (2, 4)
DATA = STEP_PHASES.index("data")


@dataclass(frozen=True)
class Setting:
    """Of the loader."""

    workers: int
    prefetch_factor: int


def settings(cores: int, workers: int, prefetch_factor: int) -> list[Setting]:
    """What is tried, the cheapest first: no process, one, two, four ... up to the cores.

    Args:
        cores: that this process may use.
        workers, prefetch_factor: the present setting, which is among those tried.
    """
    counts = {0, 1, workers, cores}
    power = 2
    while power <= cores:
        counts.add(power)
        power *= 2
    factors = sorted({*PREFETCH, prefetch_factor})
    return [
        Setting(count, factor)
        for count in sorted(counts)
        for factor in (factors if count else factors[:1])
    ]


def tune(
    tried: Sequence[Setting],
    run: Callable[[Setting, Callable[[Stepped], bool]], None],
    *,
    warmup: int,
    steps: int,
    progress: Progress,
) -> Tuning:
    """Run some training steps with each setting, and choose.

    Args:
        tried: settings, the cheapest first.
        run: trains with a setting, calling after each step what says whether to go on.
        warmup: steps with each setting that do not count; the batches fetched ahead at the
            beginning are used up in them.
        steps: with each setting that do, at least; rounded up to whole rounds of the processes.
        progress: hears of each setting.
    """
    points = []
    for number, setting in enumerate(tried):
        progress.step("tuning the loader", number, len(tried))
        # Processes take turns: only in whole rounds does each have its share of the waiting.
        rounds = -(-steps // max(1, setting.workers))
        points.append(_point(setting, run, warmup, rounds * max(1, setting.workers)))
    progress.step("tuning the loader", len(tried), len(tried))
    return chosen(points)


def _point(
    setting: Setting,
    run: Callable[[Setting, Callable[[Stepped], bool]], None],
    warmup: int,
    steps: int,
) -> TunePoint:
    kept: list[Stepped] = []
    ends: list[float] = []

    def goes_on(stepped: Stepped) -> bool:
        kept.append(stepped)
        ends.append(time.perf_counter())
        return len(kept) < warmup + steps

    # The steps used up while processes start and fill their queues say nothing of later ones.
    run(setting, goes_on)
    counted = kept[warmup:] if len(kept) > warmup + 1 else kept
    times = [stepped.timed.phases_ns for stepped in counted]
    step = step_statistics.step_summary(times)
    assert step is not None
    total = sum(map(sum, times))
    images = sum(stepped.images for stepped in counted)
    return TunePoint(
        workers=setting.workers,
        prefetch_factor=setting.prefetch_factor,
        step=step,
        images_per_s=images / (total * NANOSECOND),
        waiting=sum(phases[DATA] for phases in times) / total,
    )


def chosen(points: Sequence[TunePoint], within: float = WITHIN) -> Tuning:
    """The first point that waits for next to nothing, or has about the throughput of the best.

    Where nothing is waited for, a higher throughput elsewhere is the machine's doing and not the
    loader's. Not by the median step: of steps that wait for several processes in turn only some do.

    Args:
        points: the cheapest setting first.
        within: how much may be waited, and how much less the throughput may be.
    """
    best = max(point.images_per_s for point in points)
    take = next(
        point
        for point in points
        if point.waiting <= within or point.images_per_s >= best * (1 - within)
    )
    return Tuning(
        points=tuple(points),
        workers=take.workers,
        prefetch_factor=take.prefetch_factor,
        within=within,
    )
