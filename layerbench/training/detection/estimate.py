"""What training and inference with detectors will take, from some measured steps."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn

from layerbench.datasets.boxed import Target
from layerbench.datasets.boxed._palette import DISTINCT
from layerbench.environment import devices
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.precision import autocast, precision_set
from layerbench.environment.run_context import (
    garbage_collection_off,
    memory_explained,
    threads_set,
    watch_environment,
)
from layerbench.errors import DataError, LayerbenchError, at_least
from layerbench.instruments.attach import mode_set
from layerbench.profilers.progress import TO_COME, Progress, Silent
from layerbench.records.detection_estimate import (
    DetectionEstimates,
    DetectorEstimate,
    DetectorFailure,
    DetectorMemory,
)
from layerbench.records.environment import Environment
from layerbench.records.workload import FORMATS
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
from layerbench.training.detection.content import fitted
from layerbench.training.detection.inference import Inference, Inferred
from layerbench.training.detection.memory import check_input, detector_memory
from layerbench.training.detection.options import EstimateOptions
from layerbench.training.detection.setup import open_data
from layerbench.training.detection.step import (
    Stepped,
    Stepper,
    boxes_in,
    explained,
    found_in,
    part_times,
)
from layerbench.training.estimate import (
    Measured,
    Started,
    StepFigures,
    Trial,
    assumptions,
    check_samples,
    with_error,
)
from layerbench.training.learning import in_format
from layerbench.zoo.torchvision import of_one_size


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
    options = EstimateOptions(
        batch=batch_size, epochs=epochs, samples=total_samples, size=input_size[1:]
    )
    there = devices.get(str(device))
    with memory_explained(there), torch.random.fork_rng(devices=[]):
        return _Subject(model, options, there, Silent()).estimated()


def estimate_detectors(
    names: Sequence[str],
    options: EstimateOptions,
    *,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    so_far: Callable[[DetectionEstimates], None] | None = None,
) -> DetectionEstimates:
    """What several detectors take, one after the other; one that fails is named with its reason.

    Args:
        names: detectors' names; all of them for none.
        options: what is asked about each.
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
    if options.samples is not None:
        _check_counts(options.epochs, options.samples, options.batch)
    # What is missing for all of them is said at once.
    splits = open_data(options, options)
    there = devices.get(device)
    rows: list[DetectorEstimate] = []
    failures: list[DetectorFailure] = []

    def record(environment: Environment, *to_come: str) -> DetectionEstimates:
        missing = [DetectorFailure(model=name, why=TO_COME) for name in to_come]
        return _record(options, len(splits.train), environment, rows, [*failures, *missing])

    precision = options.learning.precision
    with (
        threads_set(threads),
        precision_set(precision, there),
        torch.random.fork_rng(devices=[]),
    ):
        room = watch_environment(there)
        for number, name in enumerate(wanted, start=1):
            heard = _Named(progress or Silent(), name)
            try:
                with memory_explained(there):
                    subject = _Subject(name, options, there, heard, room.conditions)
                    rows.append(subject.estimated())
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
    options: EstimateOptions,
    images: int,
    environment: Environment,
    rows: Sequence[DetectorEstimate],
    failures: Sequence[DetectorFailure],
) -> DetectionEstimates:
    """What was found, with what was asked; ``images``: of the data set."""
    samples = options.samples or images
    return DetectionEstimates(
        batch=options.batch,
        epochs=options.epochs,
        samples=samples,
        size=options.size,
        min_size=options.min_size,
        data=options.data,
        workers=options.workers,
        precision=options.learning.precision,
        seed=options.seed,
        environment=environment,
        rows=tuple(rows),
        failures=tuple(failures),
        assumptions=assumptions(
            samples,
            samples // options.batch,
            options.batch,
            options.workers,
            _assumptions(options),
        ),
    )


def _check_counts(epochs: int, samples: int, batch: int) -> None:
    at_least("epochs", epochs, 1)
    check_samples(samples, batch)


@dataclass(frozen=True)
class _Named:
    """Progress of one detector among several."""

    progress: Progress
    name: str

    def step(self, phase: str, done: int, total: int) -> None:
        self.progress.step(f"{self.name}: {phase}", done, total)


# --- one detector --------------------------------------------------------------------------


class _Subject:
    """One detector, measured.

    Args:
        model: a detector, of which a copy is measured, or a detector's name.
        options: what is asked about it.
        device: where.
        progress: hears of each step.
        conditions: of the device, looked at between steps and forwards.
    """

    def __init__(
        self,
        model: str | nn.Module,
        options: EstimateOptions,
        device: Device,
        progress: Progress,
        conditions: ConditionsWatch | None = None,
    ) -> None:
        self._conditions = conditions or ConditionsWatch()
        self._options = options
        self._device = device
        self._progress = progress
        self._name = model if isinstance(model, str) else type(model).__name__
        splits = open_data(options, options)
        self._notes: list[str] = list(splits.notes)
        if isinstance(model, str) and options.min_size is not None and of_one_size(model):
            options = options.model_copy(update={"min_size": None})
            self._notes.append("it takes images of one size, whatever --min_size says")
        self._model = _built(model, options, len(splits.classes)).to(device.torch_device)
        if isinstance(model, str):
            models.placed(self._model, device.torch_device, options.learning.precision)
        if models.wants_masks(self._model):
            splits = open_data(options, options, masks=True)
        self._splits = splits
        self._samples = options.samples or len(splits.train)
        self._images = ForModel(splits.train, self._model)
        if models.wants_keypoints(self._model):
            self._notes.append(MADE_UP_KEYPOINTS)
        if options.data == "synthetic":
            # Made and encoded when they are first read, which no real image has to be.
            for number in range(min(DISTINCT, len(self._images))):
                self._images[number]

    def estimated(self) -> DetectorEstimate:
        """All that is asked."""
        options = self._options
        memory = self._memory() if options.memory else None
        # Before the training, which changes what is found.
        inferred = self._inferred()
        trained = self._trained()
        figures = StepFigures.of(trained.measured)
        epoch, training = figures.training(self._samples // options.batch, 0.0, options.epochs)
        counted = trained.steps[figures.warmup :]
        parts = part_times(trained.parts, [step.timed for step in counted])
        return DetectorEstimate(
            model=self._name,
            model_type=type(self._model).__name__,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            memory=memory,
            warmup=figures.warmup,
            step=figures.step,
            phases=step_statistics.phase_rows(figures.steps),
            parts=parts.with_column("inference", inferred.parts),
            parts_ratio=parts.ratio,
            outside_s=parts.outside_s,
            between_s=figures.between_s,
            start_s=figures.start_s,
            once_s=figures.once_s,
            epoch=epoch,
            training=training,
            inference=with_error(*inferred.all_images(self._samples / options.batch)),
            boxes=boxes_in(counted),
            trained=found_in(counted),
            inferred=inferred.counts,
            one_image=inferred.one_image,
            one_batch=inferred.one_batch,
            points=inferred.points,
            fit=fitted(inferred.points),
            notes=tuple(self._notes),
        )

    def _memory(self) -> DetectorMemory | None:
        self._progress.step("memory", 0, 1)
        try:
            precision = self._options.learning.precision
            return detector_memory(self._name, self._model, self._batch(), self._device, precision)
        except LayerbenchError as error:
            self._notes.append(f"memory could not be worked out: {error}")
            return None

    def _trained(self) -> _Trained:
        options = self._options
        order = EpochBatches(len(self._images), options.batch, options.seed)
        loading = Started(
            batches(
                self._images,
                self._splits.files[0],
                order,
                seed=options.seed,
                workers=options.workers,
                prefetch_factor=options.prefetch_factor,
                pinned=self._device.kind == "cuda",
            )
        )
        stepper = Stepper(self._name, self._model, options.learning, self._device)
        trial = Trial(
            options.warmup, options.steps, options.seconds, self._device, self._conditions
        )
        steps: list[Stepped] = []
        with torch.enable_grad(), garbage_collection_off():
            for epoch in trial.epochs():
                order.set(epoch, 0, min(order.steps, trial.fewest))
                reading = Readable(iter(loading), "skip")
                before = len(steps)
                with suppress(NoMoreBatches):
                    for _ in range(len(order)):
                        steps.append(stepper.step(reading.next))
                        enough = trial.add([steps[-1].timed.phases_ns])
                        self._progress.step("training", len(steps), max(trial.fewest, len(steps)))
                        if enough:
                            break
                if before == len(steps):
                    raise DataError(f"no image of {options.data} can be read")
                if reading.skipped and epoch == 1:
                    self._notes.append(f"images that cannot be read are left out: {reading.names}")
        return _Trained(trial.measured(loading.seconds), steps, stepper.parts)

    def _inferred(self) -> Inferred:
        options = self._options
        self._progress.step("inference", 0, 1)
        timing = Inference(self._model, self._batch(), self._device, options, self._conditions)
        with (
            explained(
                self._name, f"inference{in_format(options.learning.precision)}", self._device
            ),
            mode_set(self._model, False),
            torch.no_grad(),
            garbage_collection_off(),
            autocast(options.learning.precision, self._device.torch_device.type),
        ):
            return timing.inferred()

    def _batch(self) -> BoxedBatch:
        """The images that inference runs on: the first readable ones, on the device already.

        Raises:
            DataError: there are none.
        """
        samples = Samples(self._images, self._splits.files[0], self._options.seed)
        read: list[tuple[torch.Tensor, Target]] = []
        for number in range(len(self._images)):
            sample = samples[0, number]
            if not isinstance(sample, str):
                read.append(sample)
            if len(read) == self._options.batch:
                break
        if not read:
            raise DataError(f"no image of {self._options.data} can be read")
        dtype = getattr(torch, FORMATS[self._options.learning.precision])
        return collate(read).to(self._device.torch_device, dtype)


@dataclass(frozen=True)
class _Trained:
    """The steps that ran, and the names of the detector's parts."""

    measured: Measured
    steps: list[Stepped]
    parts: tuple[str, ...]


def _built(model: str | nn.Module, options: EstimateOptions, classes: int) -> nn.Module:
    """With torchvision's classes for made-up images, which stand for any."""
    if isinstance(model, str):
        count = None if options.data == "synthetic" else classes
        return models.build(
            models.check(model), classes=count, min_size=options.min_size, seed=options.seed
        )
    return copy.deepcopy(model)


def _assumptions(options: EstimateOptions) -> Iterator[str]:
    if options.data == "synthetic":
        height, width = options.size
        resized = (
            "most to 800 pixels and more"
            if options.min_size is None
            else f"to {options.min_size} pixels at the shorter side"
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
    yield "Nothing is validated; checkpoints and reports are not counted."
