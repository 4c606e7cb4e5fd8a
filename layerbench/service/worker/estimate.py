"""One measurement, made in a process of its own. Loads torch; the web process never imports it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.machine import usable_cores
from layerbench.environment.precision import autocasting, precision_set
from layerbench.environment.run_context import (
    free_unused,
    garbage_collection_off,
    memory_explained,
    model_errors,
    watch_environment,
)
from layerbench.errors import LayerbenchError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.autorange import Autorange
from layerbench.instruments.detections import DetectionCounter
from layerbench.instruments.resident_memory import resident_peak
from layerbench.instruments.step_timer import Step, run_phases
from layerbench.instruments.utilization import UsageSampler, device_busy
from layerbench.instruments.warm_up import WarmingUp
from layerbench.introspection.nested import map_tensors
from layerbench.profilers.batches import as_loaded, copied
from layerbench.profilers.loss import loss_of
from layerbench.profilers.memory.predicted import check_memory_fits, predict
from layerbench.profilers.optimizers import make_optimizer, not_finite, scaler_of
from layerbench.records.detection_run import Usage
from layerbench.records.memory import AllocatorFigures
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import STEP_PHASES
from layerbench.records.workload import Workload
from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import Figure, MeasurementResult, Stage, UsageSample
from layerbench.training.estimate import StepFigures, Trial, mean_time
from layerbench.units import NANOSECOND
from layerbench.zoo import Built
from layerbench.zoo.family import on_device

# Of training steps and of forwards: what does not count, at least, and the fewest that do.
WARMUP, FEWEST = 2, 5
# Forwards; where one is slow, one warms up.
REPEATS = Autorange(fewest=FEWEST, most=300, slow_s=5.0, slow_fewest=2)
# Steps that are looked at phase by phase, and not timed.
LOOKED_AT = 2
# Between looks of a thread.
INTERVAL_S = 0.1
STAGES: dict[str, Stage] = {"forward": "forward", "backward": "backward", "optimizer": "optimizer"}


def measure(question: Question, device_name: str | None, seconds: float) -> MeasurementResult:
    """Build the question's model, run it, and return its time and memory.

    Args:
        question: what is asked.
        device_name: where; ``None`` takes the accelerator if there is one.
        seconds: that are measured, about, besides the warm-up.

    Raises:
        LayerbenchError: with one line that says what to do.
    """
    began_at = time.time()
    device = devices.get(device_name)
    with (
        memory_explained(device),
        torch.random.fork_rng(devices=[]),
        precision_set(question.precision, device),
    ):
        room = watch_environment(device)
        workload = workload_of(question)
        training = question.application_type == "training"
        check_memory_fits(workload, device, "momentum" if training else None)
        built = on_device(zoo.build(workload), device.torch_device)
        subject = _Subject(workload, built, device, room.conditions)
        looks = _Looks(device, subject.clock.synchronize)
        figures = (
            _trained(subject, looks, question, seconds)
            if training
            else _inferred(subject, looks, question, seconds)
        )
        environment = room.finish()
    ram_peak = max(resident_peak() or 0, *(look.ram for look in looks.all))
    peak = device.peak()
    parameters = sum(p.numel() for p in subject.model.parameters())
    # A prediction may have to run the model once more, in the same memory.
    broken = not_finite(subject.model.parameters()) if training else ""
    del subject, built
    gc.collect()
    on_gpu, notes = _predicted(workload, training) if peak is None else (_peak(peak), ())
    return MeasurementResult(
        parameters=parameters,
        ram_before=looks.all[0].ram,
        vram_before=looks.all[0].vram,
        ram_peak=ram_peak,
        cpu_peak=max(look.cpu for look in looks.all),
        gpu_peak=_most(look.gpu for look in looks.all),
        gpu_memory_peak=on_gpu,
        looks=tuple(looks.all),
        began_at=began_at,
        ended_at=time.time(),
        environment=environment,
        notes=(*notes, *([broken] if broken else [])),
        **figures,
    )


def _peak(measured: AllocatorFigures) -> Figure:
    return Figure(value=measured.reserved)


def workload_of(question: Question) -> Workload:
    """What runs.

    Raises:
        LayerbenchError: as `layerbench.zoo.resolve`.
    """
    height, width = question.image_size
    return zoo.resolve(
        question.architecture,
        f"3x{height}x{width}",
        batch=question.batch_size,
        precision=question.precision,
        mode="train" if question.application_type == "training" else "eval",
    )


class _Subject:
    """A model with its inputs, on the device, whose conditions are watched."""

    def __init__(
        self, workload: Workload, built: Built, device: Device, conditions: ConditionsWatch
    ) -> None:
        self.conditions = conditions
        self.workload = workload
        self.model: nn.Module = built.module
        self.device = device
        self._host = map_tensors(
            (built.args, built.kwargs), lambda tensor: as_loaded(tensor, device)
        )
        # A training moves a batch there for each step, and holds no other.
        self.args, self.kwargs = (
            ((), {}) if workload.mode == "train" else (built.args, built.kwargs)
        )
        self.clock = device.clock()
        self.forward = self._casting(self.model)

    def step(self) -> Step:
        """A training step with SGD with momentum."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = make_optimizer("momentum", parameters)
        scaler = scaler_of(self.workload.precision, self.device.torch_device.type)
        loss = self._casting(loss_of)

        def update() -> None:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

        return Step(
            fetch=lambda: self._host,
            move=lambda batch: copied(batch, self.device),
            forward=lambda batch: self.forward(*batch[0], **batch[1]),
            loss=lambda output, _: loss(output),
            update=update,
            backward=lambda loss: torch.autograd.backward(scaler.scale(loss)),
        )

    def _casting(self, call: Callable[..., Made]) -> Callable[..., Made]:
        return autocasting(call, self.workload.precision, self.device.torch_device.type)

    def timed(self, run: Callable[[], list[int]]) -> NDArray[np.int64]:
        """What ``run`` marked, as differences in nanoseconds."""
        clock = self.clock
        clock.reserve(len(STEP_PHASES) + 2)
        marks = run()
        clock.synchronize()
        try:
            times = list(clock.resolve(marks))
            return np.array([after - before for before, after in pairwise(times)], dtype=np.int64)
        finally:
            clock.release()


Made = TypeVar("Made")
_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _first(arguments: _Arguments) -> _Arguments:
    """Of a batch, or of a list of images, the first."""

    def one(value: Any) -> Any:  # noqa: ANN401 - an argument of any kind
        return value[:1] if isinstance(value, (torch.Tensor, list)) else value

    args, kwargs = arguments
    return tuple(map(one, args)), {name: one(value) for name, value in kwargs.items()}


# --- training ------------------------------------------------------------------------------


def _trained(
    subject: _Subject, looks: _Looks, question: Question, seconds: float
) -> dict[str, Any]:
    step = subject.step()

    trial = Trial(WARMUP, FEWEST, seconds, subject.device, subject.conditions)

    def timed_step() -> bool:
        """Run one, and count it; whether it was the last that is needed."""
        marks = lambda: [mark for mark, _, _ in run_phases(step, subject.clock.mark)]  # noqa: E731
        return trial.add([subject.timed(marks).tolist()])

    def all_steps() -> None:
        while not timed_step():
            pass

    with mode_set(subject.model, True), torch.enable_grad(), garbage_collection_off():
        looks.take("before")
        with _explained(subject):
            while not trial.is_warm:
                timed_step()
            if not question.threading:
                for _ in range(1 if trial.is_slow else LOOKED_AT):
                    for _, done, _ in run_phases(step, lambda: 0):
                        if done in STAGES:
                            looks.take(STAGES[done])
            looks.while_running(question.threading, all_steps)
    figures = StepFigures.of(trial.measured([]))
    return {
        "steps": figures.step.n,
        **{name: _figure(figures.phase(name)) for name in STAGES},
    }


# --- inference -----------------------------------------------------------------------------


def _inferred(
    subject: _Subject, looks: _Looks, question: Question, seconds: float
) -> dict[str, Any]:
    batch = subject.args, subject.kwargs
    one = _first(batch)

    def timed_forward(arguments: _Arguments) -> NDArray[np.int64]:
        args, kwargs = arguments

        def run() -> list[int]:
            start = subject.clock.mark()
            subject.forward(*args, **kwargs)
            return [start, subject.clock.mark()]

        return subject.timed(run)

    def measured_forward(arguments: _Arguments) -> NDArray[np.int64]:
        times = timed_forward(arguments)
        subject.conditions.take()
        return times

    with mode_set(subject.model, False), torch.no_grad(), garbage_collection_off():
        looks.take("before")
        with _explained(subject):
            _warmed(subject, lambda: timed_forward(one))
            slow = _warmed(subject, lambda: timed_forward(batch))
            if not question.threading:
                for _ in range(1 if slow else LOOKED_AT):
                    timed_forward(batch)
                    looks.take("inference")
            batches = looks.while_running(
                question.threading,
                lambda: REPEATS.repeat(lambda: measured_forward(batch), seconds / 2, slow=slow),
            )
            ones = REPEATS.repeat(lambda: measured_forward(one), seconds / 2, slow=slow)
            content = _content(subject, question)
    return {
        "steps": len(batches),
        "batch": _figure(mean_time(np.concatenate(batches))),
        "one_image": _figure(mean_time(np.concatenate(ones))),
        "content": content,
    }


def _content(subject: _Subject, question: Question) -> dict[str, float]:
    if question.task_type not in ("detection", "instance"):
        return {}
    counter = DetectionCounter(subject.model)
    counts = counter.of(
        lambda: subject.forward(*subject.args, **subject.kwargs), question.batch_size
    )
    return counts.model_dump(exclude_none=True)


# --- shared --------------------------------------------------------------------------------


def _warmed(subject: _Subject, run: Callable[[], NDArray[np.int64]]) -> bool:
    """Run the warm-up; returns whether a run is so slow that few must suffice."""
    warming = WarmingUp(subject.device, WARMUP)
    slow = False
    while not (slow or warming.is_over):
        taken = float(run().sum())
        warming.add(taken)
        slow = REPEATS.is_slow(taken * NANOSECOND)
    if not slow:
        # Of one slow run nobody knows whether the next would be as long.
        subject.conditions.add_warm_up(warming.taken)
    return slow


def _figure(time: Seconds) -> Figure:
    return Figure(**time.model_dump())


def _predicted(workload: Workload, training: bool) -> tuple[Figure | None, tuple[str, ...]]:
    """The memory that a GPU would need, or why it cannot be predicted."""
    try:
        estimate = predict(workload, optimizer="momentum" if training else None)
    except LayerbenchError as error:
        return None, (f"GPU memory cannot be predicted: {error}",)
    figure = Figure(
        value=estimate.reserved_bytes,
        low=estimate.reserved_interval.low,
        high=estimate.reserved_interval.high,
        method="replayed" if estimate.how == "replayed" else "analytic",
    )
    return figure, estimate.notes


def _most(values: Iterable[float | None]) -> float | None:
    values_there = [value for value in values if value is not None]
    return max(values_there) if values_there else None


@contextmanager
def _explained(subject: _Subject) -> Iterator[None]:
    """Turn what the model raises into one line; lack of memory is explained elsewhere."""
    with model_errors(subject.device, subject.workload.model):
        yield


class _Looks:
    """Looks at the hardware, by the step or from a thread.

    Args:
        device: that is looked at.
        wait: returns once the device has run everything.
    """

    def __init__(self, device: Device, wait: Callable[[], object]) -> None:
        self._device = device
        self._wait = wait
        self._process = psutil.Process()
        self._begins = self._before = time.perf_counter()
        self._spent = self._cpu_seconds()
        self._cores = usable_cores()
        self.all: list[UsageSample] = []
        free_unused(device)
        device.begin_peak()

    def take(self, stage: Stage) -> None:
        """Look now; what was put into the device's queue has run."""
        self._wait()
        now, spent = time.perf_counter(), self._cpu_seconds()
        busy = (spent - self._spent) / max(now - self._before, 1e-9) / self._cores
        self._before, self._spent = now, spent
        held = self._device.held()
        self.all.append(
            UsageSample(
                stage=stage,
                at_s=now - self._begins,
                cpu=min(1.0, max(0.0, busy)),
                ram=self._process.memory_info().rss,
                gpu=device_busy(self._device),
                vram=None if held is None else held.reserved,
            )
        )

    def while_running(self, threading: bool, run: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Run something, and look at it from a thread if that is wished."""
        if not threading:
            return run()
        with UsageSampler(self._device, INTERVAL_S, children=False) as sampler:
            outcome = run()
        self._add(sampler.usage(), time.perf_counter() - self._begins)
        return outcome

    def _add(self, usage: Usage, ended_s: float) -> None:
        last = max((sample.at_s for sample in usage.samples), default=0.0)
        for sample in usage.samples:
            self.all.append(
                UsageSample(
                    stage=None,
                    at_s=max(0.0, ended_s - last) + sample.at_s,
                    cpu=min(1.0, sample.process_cpu / usage.cores),
                    ram=sample.resident,
                    gpu=sample.device,
                    vram=sample.reserved,
                )
            )

    def _cpu_seconds(self) -> float:
        # Not psutil's, which counts in hundredths of a second.
        return time.process_time()
