"""What training and inference with detectors will take, from some measured steps."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from layerbench.analysis.statistics import Resampler, summarize
from layerbench.datasets import boxed
from layerbench.datasets.boxed import Asked, BoxedSplits, Target
from layerbench.datasets.boxed.synthetic import DISTINCT
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.environment.run_context import (
    garbage_collection_off,
    memory_explained,
    threads_set,
    watch_room,
)
from layerbench.environment.watch import Environment
from layerbench.errors import DataError, LayerbenchError, UsageError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.detector_parts import parts_of
from layerbench.instruments.step_timer import StepTimer
from layerbench.profilers.progress import TO_COME, Progress, Silent
from layerbench.records import (
    BoxesFrom,
    ContentPoint,
    DetectionEstimates,
    DetectorEstimate,
    DetectorFailure,
    DetectorMemory,
    Found,
    Labels,
    PartRow,
    Summary,
)
from layerbench.training import step_statistics
from layerbench.training.batches import EpochBatches, Samples
from layerbench.training.detection import models
from layerbench.training.detection.batches import (
    MADE_UP_KEYPOINTS,
    BoxedBatch,
    ForModel,
    NoMoreBatches,
    Readable,
    batches,
    collate,
)
from layerbench.training.detection.content import (
    LIMITS,
    FoundCount,
    can_be_limited,
    fitted,
    measured_points,
)
from layerbench.training.detection.memory import check_input, detector_memory
from layerbench.training.detection.step import (
    Learning,
    Stepped,
    Stepper,
    autocast,
    boxes_in,
    explained,
    found_in,
    part_times,
)
from layerbench.training.extrapolation import (
    DRIFT,
    Figured,
    Measured,
    Started,
    extrapolated,
    with_error,
)
from layerbench.zoo.torchvision import of_one_size

SAMPLES = 50_000
# So small that the weights stay as they are: with random ones and without batch norms (SSD300) the
# usual rate drives the losses out of all numbers within a few steps, and no rate changes the time.
STILL = 1e-9
MOST_EPOCHS = 1000
# Where a step takes so many seconds, few of them have to do.
SLOW_S = 20.0
SLOW_WARMUP, SLOW_STEPS = 1, 2
# Forwards that detect: the fewest and the most that are kept; fewer where one takes so long.
FEWEST, MOST = 3, 50
SLOW_FORWARD_S = 5.0
SLOW_FEWEST = 2


@dataclass(frozen=True)
class Asking:
    """What is asked about each detector.

    Attributes:
        batch, epochs, samples: of the training; ``samples`` of ``None`` are as many as the data
            set has.
        size: height and width of made-up images.
        min_size: the shorter side that detectors resize images to; ``None`` for their own, which
            those that take images of one size keep.
        data: a data set with boxes; ``data_dir``: where such lie; ``download``: fetch it.
        boxes, labels: what of it is learned, where it leaves a choice.
        learning: how the detector learns.
        workers, prefetch_factor: of the loader.
        warmup, steps: training steps that do not count, and the fewest that are measured; one and
            two where a step takes longer than `SLOW_S`.
        seconds: that training is measured at least, and about half as long inference.
        content: whether inference is measured with several amounts found.
        memory: whether the tensors of a step are traced.
        seed: of weights, images and order.
    """

    batch: int = 8
    epochs: int = 3
    samples: int | None = SAMPLES
    size: tuple[int, int] = (224, 224)
    min_size: int | None = None
    data: str = "synthetic"
    data_dir: str | Path = "data"
    download: bool = False
    boxes: BoxesFrom = "trimap"
    labels: Labels = "breed"
    learning: Learning = field(default_factory=lambda: Learning(lr=STILL))
    workers: int = 0
    prefetch_factor: int | None = None
    warmup: int = 2
    steps: int = 5
    seconds: float = 10.0
    content: bool = True
    memory: bool = True
    seed: int = 0


def estimate_time(
    device: str | torch.device,
    batch_size: int,
    epochs: int,
    model: str | nn.Module,
    total_samples: int,
    input_size: tuple[int, int, int] = (3, 224, 224),
) -> DetectorEstimate:
    """How long training and inference with a detector take: ``.training`` and ``.inference``.

    Training steps are measured on made-up JPEG images with several boxes each (and masks or
    keypoints for detectors that learn from them): loading, forward, backward and optimizer; so is
    inference, with one image and with a batch. Both totals have a 95 % interval.

    Args:
        device: where it would run; a model that was handed over is copied there.
        batch_size: images of a step.
        epochs: of the training.
        model: a detector, which stays as it is, or a detector's name.
        total_samples: images of an epoch.
        input_size: channels, height and width of the images handed over; detectors resize them.

    Raises:
        ValueError: torchvision has no such detection model.
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    check_input(batch_size, input_size)
    _check_counts(epochs, total_samples, batch_size)
    asking = Asking(batch=batch_size, epochs=epochs, samples=total_samples, size=input_size[1:])
    there = devices.get(str(device))
    with memory_explained(there), torch.random.fork_rng(devices=[]):
        return _Subject(model, asking, there, Silent()).estimated()


def estimate_detectors(
    names: Sequence[str],
    asking: Asking,
    *,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    so_far: Callable[[DetectionEstimates], None] | None = None,
) -> DetectionEstimates:
    """What several detectors take, one after the other; one that fails is named with its reason.

    Args:
        names: detectors' names; all of them for none.
        asking: what is asked about each.
        device: where; ``None`` takes the accelerator if there is one.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        progress: hears of each measured step.
        so_far: gets the record after each detector but the last; those to come are among its
            ``failures``.

    Raises:
        ValueError: torchvision has no such detection model.
        DataError: the data are not there.
        LayerbenchError: a single detector that could not be measured.
    """
    wanted = [models.check(name) for name in names] or list(models.names())
    if asking.samples is not None:
        _check_counts(asking.epochs, asking.samples, asking.batch)
    # What is missing for all of them is said at once.
    splits = _opened(asking)
    there = devices.get(device)
    rows: list[DetectorEstimate] = []
    failures: list[DetectorFailure] = []

    def record(environment: Environment, *to_come: str) -> DetectionEstimates:
        missing = [DetectorFailure(model=name, why=TO_COME) for name in to_come]
        return _record(asking, len(splits.train), environment, rows, [*failures, *missing])

    with threads_set(threads), torch.random.fork_rng(devices=[]):
        room = watch_room(there)
        for number, name in enumerate(wanted, start=1):
            heard = _Named(progress or Silent(), name)
            try:
                with memory_explained(there):
                    rows.append(_Subject(name, asking, there, heard).estimated())
            except LayerbenchError as error:
                if len(wanted) == 1:
                    raise
                why = str(error).removeprefix(f"{name}: ")
                failures.append(DetectorFailure(model=name, why=why))
            # A model refers to itself: without a collection its memory would stay taken.
            gc.collect()
            there.forget_freed()
            if so_far is not None and number < len(wanted):
                so_far(record(room.finish(), *wanted[number:]))
        return record(room.finish())


def _record(
    asking: Asking,
    images: int,
    environment: Environment,
    rows: Sequence[DetectorEstimate],
    failures: Sequence[DetectorFailure],
) -> DetectionEstimates:
    """What was found, with what was asked; ``images``: of the data set."""
    samples = asking.samples or images
    return DetectionEstimates(
        batch=asking.batch,
        epochs=asking.epochs,
        samples=samples,
        size=asking.size,
        min_size=asking.min_size,
        data=asking.data,
        workers=asking.workers,
        precision=asking.learning.precision,
        seed=asking.seed,
        environment=environment,
        rows=tuple(rows),
        failures=tuple(failures),
        assumptions=tuple(_assumptions(asking, samples)),
    )


def _check_counts(epochs: int, samples: int, batch: int) -> None:
    if epochs < 1:
        raise UsageError(f"epochs must be at least 1, got {epochs}")
    if samples < batch:
        raise UsageError(
            f"{samples} images are fewer than one batch of {batch}: raise --samples or lower "
            "--batch"
        )


@dataclass(frozen=True)
class _Named:
    """Progress of one detector among several."""

    progress: Progress
    name: str

    def step(self, phase: str, done: int, total: int) -> None:
        self.progress.step(f"{self.name}: {phase}", done, total)


def _opened(asking: Asking, *, masks: bool = False) -> BoxedSplits:
    return boxed.get(asking.data).open(
        Asked(
            root=Path(asking.data_dir),
            boxes=asking.boxes,
            classes=asking.labels,
            masks=masks,
            download=asking.download,
            seed=asking.seed,
            samples=asking.samples,
            size=asking.size,
        )
    )


# --- one detector --------------------------------------------------------------------------


class _Subject:
    """One detector, measured.

    Args:
        model: a detector, of which a copy is measured, or a detector's name.
        asking: what is asked about it.
        device: where.
        progress: hears of each step.
    """

    def __init__(
        self, model: str | nn.Module, asking: Asking, device: Device, progress: Progress
    ) -> None:
        self._asking = asking
        self._device = device
        self._progress = progress
        self._name = model if isinstance(model, str) else type(model).__name__
        splits = _opened(asking)
        self._notes: list[str] = list(splits.notes)
        if isinstance(model, str) and asking.min_size is not None and of_one_size(model):
            asking = replace(asking, min_size=None)
            self._notes.append("it takes images of one size, whatever --min_size says")
        self._model = _built(model, asking, len(splits.classes)).to(device.torch_device)
        if models.wants_masks(self._model):
            splits = _opened(asking, masks=True)
        self._splits = splits
        self._samples = asking.samples or len(splits.train)
        self._images = ForModel(splits.train, self._model)
        if models.wants_keypoints(self._model):
            self._notes.append(MADE_UP_KEYPOINTS)
        if asking.data == "synthetic":
            # Made and encoded when they are first read, which no real image has to be.
            for number in range(min(DISTINCT, len(self._images))):
                self._images[number]

    def estimated(self) -> DetectorEstimate:
        """All that is asked."""
        asking = self._asking
        memory = self._memory() if asking.memory else None
        # Before the training, which changes what is found.
        inferred = self._inferred()
        trained = self._trained()
        figured = Figured.of(trained.measured, trained.warmup)
        steps = self._samples // asking.batch
        epoch, training = extrapolated(figured, steps, 0.0, asking.epochs)
        counted = trained.steps[trained.warmup :]
        parts = part_times(trained.parts, [step.timed for step in counted])
        return DetectorEstimate(
            model=self._name,
            model_type=type(self._model).__name__,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            memory=memory,
            warmup=figured.warmup,
            step=figured.step,
            phases=step_statistics.phase_rows(figured.steps),
            parts=_with_inference(parts.rows, inferred.parts),
            parts_ratio=parts.ratio,
            outside_s=parts.outside_s,
            between_s=figured.between_s,
            start_s=figured.start_s,
            once_s=figured.once_s,
            epoch=epoch,
            training=training,
            inference=with_error(*inferred.all_images(self._samples / asking.batch)),
            boxes=boxes_in(counted),
            trained=found_in(counted),
            inferred=inferred.found,
            one_image=inferred.one_image,
            one_batch=inferred.one_batch,
            points=inferred.points,
            fit=fitted(inferred.points),
            notes=tuple(self._notes),
        )

    def _memory(self) -> DetectorMemory | None:
        self._progress.step("memory", 0, 1)
        try:
            return detector_memory(self._name, self._model, self._batch(), self._device)
        except LayerbenchError as error:
            self._notes.append(f"memory could not be worked out: {error}")
            return None

    def _trained(self) -> _Trained:
        asking = self._asking
        order = EpochBatches(len(self._images), asking.batch, asking.seed)
        loading = Started(
            batches(
                self._images,
                self._splits.files[0],
                order,
                seed=asking.seed,
                workers=asking.workers,
                prefetch_factor=asking.prefetch_factor,
                pinned=self._device.kind == "cuda",
            )
        )
        stepper = Stepper(self._name, self._model, asking.learning, self._device)
        warmup, fewest = asking.warmup, asking.warmup + asking.steps
        steps: list[Stepped] = []
        firsts: list[int] = []
        begins = time.perf_counter()

        def enough() -> bool:
            return len(steps) >= fewest and time.perf_counter() - begins >= asking.seconds

        with torch.enable_grad(), garbage_collection_off():
            for epoch in range(1, MOST_EPOCHS + 1):
                order.set(epoch, 0, min(order.steps, fewest))
                firsts.append(len(steps))
                reading = Readable(iter(loading), "skip")
                with suppress(NoMoreBatches):
                    for _ in range(len(order)):
                        steps.append(stepper.step(reading.next))
                        if len(steps) == 1 and _seconds(steps[0]) > SLOW_S:
                            warmup = min(SLOW_WARMUP, asking.warmup)
                            fewest = warmup + SLOW_STEPS
                        self._progress.step("training", len(steps), max(fewest, len(steps)))
                        if fewest < len(order) and enough():
                            break
                if firsts[-1] == len(steps):
                    raise DataError(f"no image of {asking.data} can be read")
                if reading.skipped and epoch == 1:
                    self._notes.append(f"images that cannot be read are left out: {reading.names}")
                if enough():
                    break
        wall = time.perf_counter() - begins
        times = [step.timed.phases_ns for step in steps]
        inside = sum(map(sum, times)) * step_statistics.NANOSECOND
        between = max(0.0, wall - inside - sum(loading.seconds))
        measured = Measured(times, firsts, loading.seconds, between)
        return _Trained(measured, steps, warmup, stepper.parts)

    def _inferred(self) -> _Inferred:
        asking = self._asking
        self._progress.step("inference", 0, 1)
        timing = _Inference(self._model, self._batch(), self._device, asking)
        with (
            explained(self._name, "inference", self._device),
            mode_set(self._model, False),
            torch.no_grad(),
            garbage_collection_off(),
            autocast(asking.learning.precision, self._device),
        ):
            return timing.inferred()

    def _batch(self) -> BoxedBatch:
        """The images that inference runs on: the first readable ones, on the device already.

        Raises:
            DataError: there are none.
        """
        samples = Samples(self._images, self._splits.files[0], self._asking.seed)
        read: list[tuple[torch.Tensor, Target]] = []
        for number in range(len(self._images)):
            sample = samples[0, number]
            if not isinstance(sample, str):
                read.append(sample)
            if len(read) == self._asking.batch:
                break
        if not read:
            raise DataError(f"no image of {self._asking.data} can be read")
        return collate(read).to(self._device.torch_device)


@dataclass(frozen=True)
class _Trained:
    """The steps that ran, how many of them do not count, and the names of the detector's parts."""

    measured: Measured
    steps: list[Stepped]
    warmup: int
    parts: tuple[str, ...]


def _seconds(step: Stepped) -> float:
    return sum(step.timed.phases_ns) * step_statistics.NANOSECOND


def _built(model: str | nn.Module, asking: Asking, classes: int) -> nn.Module:
    """With torchvision's classes for made-up images, which stand for any."""
    if isinstance(model, str):
        count = None if asking.data == "synthetic" else classes
        return models.build(
            models.check(model), classes=count, min_size=asking.min_size, seed=asking.seed
        )
    return copy.deepcopy(model)


@dataclass(frozen=True)
class _Inferred:
    """What forwards that detect showed.

    Attributes:
        one_image, one_batch: latencies.
        batch_s: of each forward with a batch.
        found: in the batch, for an image.
        parts: time of each part in forwards with a batch.
        points: latency of one image with several amounts found.
    """

    one_image: Summary
    one_batch: Summary
    batch_s: NDArray[np.float64]
    found: Found
    parts: dict[str, Summary | None]
    points: tuple[ContentPoint, ...]

    def all_images(self, batches: float) -> tuple[float, NDArray[np.float64], float]:
        """Seconds of so many forwards, the times they are told from, and their mean."""
        mean = float(self.batch_s.mean())
        return batches * mean, self.batch_s, mean


class _Inference:
    """Forwards that detect. Used with the model in eval mode, without gradients.

    Args:
        model: on the device.
        batch: images there.
        device: where.
        asking: for how long, and whether also with several amounts found.
    """

    def __init__(self, model: nn.Module, batch: BoxedBatch, device: Device, asking: Asking) -> None:
        self._model = model
        self._images = batch.images
        self._device = device
        self._content = asking.content
        self._parts = parts_of(model)
        # One image, a batch, and each of the points of the content have about as long.
        self._seconds = asking.seconds / 2 / (2 + (len(LIMITS) if asking.content else 0))

    def inferred(self) -> _Inferred:
        """All of it."""
        one = self._summary(self._times(lambda: self._model(self._images[:1])))
        found: list[Found] = []
        # What is found is counted in the forward that is not kept.
        first = _timed(self._device.clock(), lambda: found.append(self._found()))
        batch_s, taken = self._batches(first)
        points = (
            measured_points(
                self._model, self._images[0], lambda call: self._summary(self._times(call))
            )
            if self._content and can_be_limited(self._model)
            else []
        )
        parts = self._by_part(taken)
        return _Inferred(one, self._summary(batch_s), batch_s, found[0], parts, tuple(points))

    def _found(self) -> Found:
        """What a forward with the batch finds, for an image."""
        return FoundCount(self._model).of(self._whole_batch, len(self._images))

    def _whole_batch(self) -> Any:  # noqa: ANN401 - what the detector found
        return self._model(self._images)

    def _batches(self, first: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds of forwards with the batch; nanoseconds of forwards by part.

        Args:
            first: seconds of a first one.

        Returns:
            ``[forwards]`` and ``[forwards, parts]``, which are other forwards than those, except
            where one is slow: beside it the few marks that the parts need are nothing.
        """
        timer = StepTimer(
            self._parts.timed, self._parts.owners, len(self._parts.names), self._device.clock()
        )

        def taken_apart(count: int) -> NDArray[np.int64]:
            forwards = [timer.forward_only(self._whole_batch) for _ in range(count)]
            return np.stack([forward.self_ns for forward in forwards])

        if first > SLOW_FORWARD_S:
            taken = taken_apart(SLOW_FEWEST)
            return taken.sum(axis=1) * step_statistics.NANOSECOND, taken
        whole = self._after(first, self._whole_batch)
        return whole, taken_apart(min(FEWEST, len(whole)))

    def _by_part(self, taken: NDArray[np.int64]) -> dict[str, Summary | None]:
        return {
            name: step_statistics.summary(taken[:, row]) if taken[:, row].any() else None
            for row, name in enumerate(self._parts.names)
        }

    def _times(self, call: Callable[[], Any]) -> NDArray[np.float64]:
        """Seconds of a call, as often as the time allows; a first one is not kept."""
        return self._after(_timed(self._device.clock(), call), call)

    def _after(self, first: float, call: Callable[[], Any]) -> NDArray[np.float64]:
        """Seconds of a call that took so long at first, as often as the time allows."""
        clock = self._device.clock()
        if first > SLOW_FORWARD_S:
            return np.array([_timed(clock, call) for _ in range(SLOW_FEWEST)])
        expected = min(first, _timed(clock, call))
        count = int(min(max(self._seconds / max(expected, 1e-9), FEWEST), MOST))
        return np.array([_timed(clock, call) for _ in range(count)])

    @staticmethod
    def _summary(seconds: NDArray[np.float64]) -> Summary:
        return summarize(seconds, Resampler([len(seconds)]))


def _timed(clock: Clock, call: Callable[[], Any]) -> float:
    clock.reserve(2)
    start = clock.mark()
    call()
    end = clock.mark()
    clock.synchronize()
    try:
        first, last = clock.resolve([start, end])
    finally:
        clock.release()
    return float((last - first) * step_statistics.NANOSECOND)


def _with_inference(
    rows: Sequence[PartRow], inference: dict[str, Summary | None]
) -> tuple[PartRow, ...]:
    return tuple(row.model_copy(update={"inference": inference.get(row.name)}) for row in rows)


def _assumptions(asking: Asking, samples: int) -> Iterator[str]:
    steps = samples // asking.batch
    yield (
        f"All epochs are alike: {steps} steps of {asking.batch} images; "
        f"{samples - steps * asking.batch} left over are not trained on."
    )
    yield (
        f"One process; {asking.workers} further ones load images."
        if asking.workers
        else "One process, which loads its images itself."
    )
    if asking.data == "synthetic":
        height, width = asking.size
        resized = (
            "most to 800 pixels and more"
            if asking.min_size is None
            else f"to {asking.min_size} pixels at the shorter side"
        )
        yield (
            f"The images are made up, {height}x{width}, decoded from JPEG at each reading; each "
            f"has several boxes. Detectors resize them: {resized}."
        )
    yield (
        "The weights are random: what such a detector finds is stated beside the time, and how the "
        "time depends on it."
    )
    yield "Inference is timed on images that lie in memory."
    if asking.memory and asking.learning.precision != "float32":
        yield "Memory is that of a float32 step."
    yield "Nothing is validated; checkpoints and reports are not counted."
    yield (
        f"The machine is as busy as now: its speed moves as it did during the measurement, and by "
        f"{DRIFT:.0%} besides (standard deviation)."
    )
