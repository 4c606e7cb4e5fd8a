"""A sweep: latency and memory over input sizes and batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench import zoo
from layerbench.analysis.aggregation import believed
from layerbench.analysis.climbing import FEWEST, WARMUP, too_long
from layerbench.analysis.statistics import Resampler, summarize
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.precision import check_precision, precision_set
from layerbench.environment.run_context import (
    check_input_fits,
    free_unused,
    garbage_collection_off,
    gradients_on,
    memory_explained,
    threads_set,
    watch_environment,
)
from layerbench.errors import LayerbenchError, NotEnoughMemory, UsageError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.autorange import Autorange
from layerbench.instruments.warm_up import WarmingUp
from layerbench.profilers.memory.predicted import check_memory_fits, predict
from layerbench.profilers.progress import TO_COME, Progress, Silent
from layerbench.profilers.rounds import Rounds
from layerbench.profilers.structure import profile_structure
from layerbench.profilers.timing import Session
from layerbench.records.conditions import WarmUp
from layerbench.records.environment import Environment
from layerbench.records.memory import AllocatorFigures
from layerbench.records.samples import waits_of
from layerbench.records.sweep import FinishedRun, Sweep, SweepEnd, SweepPoint
from layerbench.records.timing import Summary
from layerbench.records.training_run import TrainingRun
from layerbench.records.workload import (
    JOINED,
    Checkpoint,
    MemoryFormat,
    Plan,
    Precision,
    Workload,
    computed_in,
    precision_of,
)
from layerbench.store import reading
from layerbench.units import NANOSECOND
from layerbench.zoo import Built
from layerbench.zoo.family import on_device

# Where one forward takes longer than a point may, one less warms up and few are kept.
REPEATS = Autorange(fewest=FEWEST, most=50, slow_fewest=3)


# A model and its inputs for a batch size, on the device.
Subject = Callable[[int], Built]


@dataclass(frozen=True)
class Climb:
    """One model at one size, over batch sizes.

    Attributes:
        model: as the points name it.
        size: height and width.
        workload: gives, for a batch size, what runs.
        subject: gives, for a batch size, a model and its inputs that were handed over; ``None``
            builds the workload.
        formats: number formats of model and input.
        checkpoint: the file that its weights are from.
    """

    model: str
    size: tuple[int, int]
    workload: Callable[[int], Workload]
    subject: Subject | None = None
    formats: tuple[str, ...] = ("float32",)
    checkpoint: Checkpoint | None = None

    @property
    def name(self) -> str:
        """Of model and size, for people."""
        return f"{self.model} {self.size[0]}x{self.size[1]}"


def run_sweep(
    models: Sequence[str],
    batches: Sequence[int],
    sizes: Sequence[int] | None,
    device: Device,
    *,
    precision: Precision | None,
    memory_format: MemoryFormat,
    threads: int | None,
    seconds: float,
    checkpoint: str | Path | None = None,
    runs: Path | None = None,
    progress: Progress | None = None,
    so_far: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Climb over batch sizes for each model and size.

    Args:
        models: model specs.
        batches: ascending.
        sizes: heights and widths; ``None`` for what each model is meant for.
        device: where it runs.
        precision, memory_format: of all points; without a precision, float32 and the formats that
            models of the user's have.
        threads, seconds, progress: as for `climb`.
        checkpoint: a file of weights, of the only model.
        runs: a folder with finished trainings.
        so_far: gets the record after each model and size but the last; a note says what is to
            come.

    Raises:
        UsageError: a checkpoint, and more than one model.
        LayerbenchError: a model cannot be built, or does not take a size, or the device does not
            have the precision.
    """
    if checkpoint is not None and len(models) > 1:
        raise UsageError(f"a checkpoint is of one model, and here are {len(models)}")
    check_precision(precision, device)
    sides: Sequence[int | None] = sizes or (None,)
    climbs = [
        _climb(model, size, batches[0], precision, memory_format, checkpoint)
        for model in models
        for size in sides
    ]
    finished = () if runs is None else tuple(_finished(runs))
    points: list[SweepPoint] = []
    ends: list[SweepEnd] = []

    def record(environment: Environment, to_come: Sequence[Climb] = ()) -> Sweep:
        return Sweep(
            dtype=JOINED.join(dict.fromkeys(name for what in climbs for name in what.formats)),
            precision=computed_in(precision),
            channels_last=memory_format == "channels_last",
            checkpoint=climbs[0].checkpoint,
            environment=environment,
            points=tuple(points),
            ends=tuple(ends),
            runs=finished,
            notes=tuple(f"{what.name}: {TO_COME}" for what in to_come),
        )

    with threads_set(threads), precision_set(precision, device):
        watch = watch_environment(device)
        for number, what in enumerate(climbs, start=1):
            climb_points, end = climb(
                what,
                batches,
                device,
                threads=threads,
                seconds=seconds,
                progress=progress,
                conditions=watch.conditions,
            )
            points += climb_points
            ends += [end] if end else []
            if so_far is not None and number < len(climbs):
                so_far(record(watch.finish(), climbs[number:]))
        return record(watch.finish())


def _climb(
    model: str,
    size: int | None,
    first: int,
    precision: Precision | None,
    memory_format: MemoryFormat,
    weights: str | Path | None = None,
) -> Climb:
    shape = None if size is None else f"3x{size}x{size}"
    settings: dict[str, Any] = {"memory_format": memory_format}
    smallest = zoo.resolve(
        model, shape, batch=first, precision=precision, checkpoint=weights, **settings
    )

    def resolved(batch: int, precision: Precision | None) -> Workload:
        workload = zoo.resolve(model, shape, batch=batch, precision=precision, **settings)
        return workload.model_copy(update={"checkpoint": smallest.checkpoint})

    height, width = smallest.shape[-2:]
    # The first look has shown a model's own format.
    known = precision or precision_of(smallest.dtype)
    return Climb(
        smallest.model,
        (height, width),
        lambda batch: resolved(batch, known),
        formats=smallest.formats,
        checkpoint=smallest.checkpoint,
    )


def _finished(folder: Path) -> Iterator[FinishedRun]:
    """The finished trainings in a folder, at any depth."""
    for _, record in reading.read_all([folder]):
        if not isinstance(record, TrainingRun) or record.outcome == "running":
            continue
        if record.best is not None and record.flops is not None:
            yield FinishedRun(
                model=record.recipe.model,
                data=record.recipe.data,
                size=record.recipe.size,
                flops=record.flops,
                parameters=record.parameters,
                accuracy=record.best.val_accuracy,
            )


def climb(
    what: Climb,
    batches: Sequence[int],
    device: Device,
    *,
    threads: int | None = None,
    seconds: float,
    progress: Progress | None = None,
    conditions: ConditionsWatch | None = None,
) -> tuple[list[SweepPoint], SweepEnd | None]:
    """Measure one batch size after the other, until one does not fit or takes too long.

    Args:
        what: the model.
        batches: images a forward, ascending.
        device: where it runs.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        seconds: for each point, about; the climb ends where the fewest forwards would take more.
        progress: hears of each point.
        conditions: of the device, looked at between forwards.

    Returns:
        the points, and why there are no more.
    """
    subject = what.subject or _built_once(what.workload, device)
    conditions = conditions or ConditionsWatch(device.look)
    points: list[SweepPoint] = []
    for number, batch in enumerate(batches):
        (progress or Silent()).step(what.name, number, len(batches))
        why = too_long(points, batch, seconds)
        if why:
            return points, _end(what, batch, True, why)
        try:
            points.append(_point(what, subject, batch, device, threads, seconds, conditions))
        except NotEnoughMemory as error:
            return points, _end(what, batch, False, str(error))
    return points, None


def _end(what: Climb, batch: int, fits: bool, why: str) -> SweepEnd:
    return SweepEnd(model=what.model, size=what.size, batch=batch, fits=fits, why=why)


def _built_once(workload: Callable[[int], Workload], device: Device) -> Subject:
    """One model for all batch sizes, where its input is one tensor; others are built each time."""
    held: list[tuple[nn.Module, torch.dtype]] = []

    def subject(batch: int) -> Built:
        wanted = workload(batch)
        if wanted.input != zoo.inputs.OWN and held:
            model, dtype = held[0]
            images = zoo.inputs_for(
                wanted.shape, wanted.dtype, wanted.memory_format, seed=wanted.seed
            )
            return Built(model, (images.to(device.torch_device, dtype),))
        held.clear()
        built = on_device(zoo.build(wanted), device.torch_device)
        if [type(arg) for arg in built.args] == [torch.Tensor] and not built.kwargs:
            # Not its input: that would lie beside the next one.
            held.append((built.module, built.args[0].dtype))
        return built

    return subject


def _point(
    what: Climb,
    subject: Subject,
    batch: int,
    device: Device,
    threads: int | None,
    seconds: float,
    conditions: ConditionsWatch,
) -> SweepPoint:
    workload = what.workload(batch)
    free_unused(device)  # of the point before
    check_input_fits(workload, device)
    check_memory_fits(workload, device, None)
    with memory_explained(device):
        built = subject(batch)
    device.begin_peak()
    latency, warm_up = _latency(workload, built, device, threads, seconds, conditions)
    measured = device.peak()
    return SweepPoint(
        model=what.model,
        size=what.size,
        batch=batch,
        latency=latency,
        flops=flops_of(workload, built),
        memory="predicted" if measured is None else "measured",
        warm_up=warm_up,
        **_figures(measured or _predicted(workload, built)),
    )


def _latency(
    workload: Workload,
    built: Built,
    device: Device,
    threads: int | None,
    seconds: float,
    conditions: ConditionsWatch,
) -> tuple[Summary, WarmUp | None]:
    """Of one session, whose first forwards say how many further ones the time allows."""
    plan = Plan(granularity="whole", function_iterations=0, threads=threads)
    with (
        threads_set(threads),
        memory_explained(device),
        mode_set(built.module, False),
        gradients_on(False),
    ):
        # Looks at shapes in a forward, the first of the warm-up.
        rounds = Session(workload, plan, device, built, Silent()).rounds
        with garbage_collection_off():
            warming = WarmingUp(device, WARMUP - 1)
            slow = _warm(rounds, warming) > seconds
            while not (slow or warming.is_over):
                _warm(rounds, warming)
            conditions.add_warm_up(warming.taken)
            expected = min(rounds.untouched) * NANOSECOND
            rounds.forget()
            left_s = seconds - WARMUP * expected
            iterations = REPEATS.count(expected, left_s, slow=slow)
            for _ in range(iterations):
                rounds.run_untouched()
                conditions.take()
    times = np.array(rounds.untouched, dtype=np.float64) * NANOSECOND
    summary = summarize(times, Resampler([iterations], seed=workload.seed))
    return believed(summary, waits_of([rounds.arrays()])), warming.taken


def _warm(rounds: Rounds, warming: WarmingUp) -> float:
    """Run a forward of the warm-up; gives its seconds."""
    rounds.run_untouched()
    warming.add(rounds.untouched[-1])
    return rounds.untouched[-1] * NANOSECOND


def flops_of(workload: Workload, built: Built) -> int | None:
    """FLOPs of one forward, a multiply-add being 2; ``None`` where they cannot be counted."""
    try:
        return profile_structure(workload, built).flops
    except LayerbenchError:
        return None


def _predicted(workload: Workload, built: Built) -> AllocatorFigures | None:
    """Predicted peaks of a GPU's allocator; ``None`` if they cannot be predicted."""
    try:
        estimate = predict(workload, subject=built)
    except LayerbenchError:
        return None
    return AllocatorFigures(allocated=estimate.peak_bytes, reserved=estimate.reserved_bytes)


def _figures(figures: AllocatorFigures | None) -> dict[str, int]:
    return {} if figures is None else figures.model_dump()
