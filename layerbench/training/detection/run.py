"""A detector's training, taken apart while it runs; readable as a list of steps.

::

    outputs/detect_<model>_<data>_<time>/
        recipe.json       what was asked, written first
        train.log         what happened, with times
        report.txt        the report: bottleneck, phases, parts, operators, utilization
        metrics.csv       a row an epoch
        detection.json    the record
        trace.json.gz     the profiled steps, for chrome://tracing and Perfetto
        utilization.png   how busy the machine was
        model.pth         the weights; model.safetensors beside it
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from layerbench import plots, reporters
from layerbench.environment.devices import Device
from layerbench.environment.machine import usable_cores
from layerbench.environment.precision import precision_set
from layerbench.environment.run_context import (
    free_unused,
    garbage_collection_off,
    memory_explained,
    threads_set,
    watch_environment,
)
from layerbench.errors import DataError
from layerbench.instruments.checkpointed import note_on_checkpointed
from layerbench.instruments.resident_memory import resident_peak
from layerbench.instruments.utilization import UsageSampler
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.detection_run import DetectionEpoch, DetectionRun, Tuning, Usage
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.training_step import PhaseRow
from layerbench.store import writing
from layerbench.training import run_folder, step_statistics
from layerbench.training.batches import STEP, EpochBatches
from layerbench.training.detection import models
from layerbench.training.detection.batches import (
    MADE_UP_KEYPOINTS,
    BoxedBatch,
    ForModel,
    NoMoreBatches,
    Readable,
    batches,
)
from layerbench.training.detection.bottleneck import judge
from layerbench.training.detection.config import RunOptions
from layerbench.training.detection.loader_tuning import Setting, settings, tune
from layerbench.training.detection.operators import WORKING, Profiled, profile_steps
from layerbench.training.detection.setup import (
    device_of,
    learning_of,
    open_data,
)
from layerbench.training.detection.step import Stepped, Stepper, boxes_in, found_in, part_times
from layerbench.training.run_folder import log
from layerbench.training.seeds import mixed
from layerbench.units import NANOSECOND

RECORD, REPORT, TRACE = "detection.json", "report.txt", "trace.json.gz"
# Steps with each setting of the loader: not counted, and counted at least.
TUNE_WARMUP, TUNE_STEPS = 4, 8
NOTHING_READ = "no image of a whole epoch could be read"


@dataclass(frozen=True)
class Detected:
    """What came of a run.

    Attributes:
        record: the run's.
        folder: everything that it wrote.
        model: that was trained, on its device.
    """

    record: DetectionRun
    folder: Path
    model: nn.Module


def run_detection(
    recipe: DetectionRecipe,
    around: RunOptions,
    *,
    tuned: bool = False,
    tune_steps: int = TUNE_STEPS,
    progress: Progress | None = None,
) -> Detected:
    """Fine-tune a detector, profile it, and write everything that a run writes.

    Args:
        recipe: what is trained, and what of it is profiled.
        around: where it happens.
        tuned: try settings of the loader first, and go on with the best.
        tune_steps: measured with each of them, at least.
        progress: hears of each step.

    Raises:
        ValueError: torchvision has no such detection model.
        DataError: the data are not there, or an image cannot be read.
        TrainingStopped: a loss is no number.
        NotEnoughMemory: with what was requested and what is free.
        DeviceUnavailable: with what to write instead.
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    models.check(recipe.model)
    device = device_of(around.device)
    with (
        threads_set(around.threads),
        precision_set(recipe.precision, device),
        torch.random.fork_rng(devices=[]),
        memory_explained(device),
    ):
        run = _Run(recipe, around, device, progress or Silent())
        with run_folder.logged(run.folder):
            try:
                return run.run(tune_steps if tuned else None)
            except KeyboardInterrupt:
                log.error(
                    "interrupted: a detector's training keeps no state to go on from; %s holds "
                    "what was asked and the log",
                    run.folder,
                )
                raise


@dataclass
class _Epoch:
    """What an epoch has added up so far."""

    steps: list[Stepped] = field(default_factory=list)
    watched: int = 0
    watched_images: int = 0


class _Run:
    """One run."""

    def __init__(
        self, recipe: DetectionRecipe, around: RunOptions, device: Device, progress: Progress
    ) -> None:
        self._recipe = recipe
        self._device = device
        self._progress = progress
        self._room = watch_environment(device)
        splits = open_data(recipe, around)
        model = models.build(
            recipe.model,
            pretrained=recipe.pretrained,
            classes=len(splits.classes),
            min_size=recipe.min_size,
            seed=recipe.seed,
        )
        self._splits = (
            open_data(recipe, around, masks=True) if models.wants_masks(model) else splits
        )
        self._model = models.placed(model, device.torch_device, recipe.precision)
        self._images = ForModel(self._splits.train, self._model)
        self._order = EpochBatches(len(self._images), recipe.batch, recipe.seed)
        self._stepper = Stepper(recipe.model, self._model, learning_of(recipe), device)
        # What can go wrong before has: from here on the run leaves something behind.
        prefix = f"detect_{recipe.model}_{recipe.data}_"
        self.folder = run_folder.new_folder(recipe, around.output_dir, prefix)
        self._save_weights = around.save_weights
        self._most_pixels = around.most_pixels
        self._profiled: Profiled | None = None
        self._cannot_profile = False
        self._unreadable: list[str] = []

    def run(self, tune_steps: int | None) -> Detected:
        """Train all epochs and write the reports."""
        recipe = self._recipe
        self._log_start()
        tuning = None if tune_steps is None else self._tuning(tune_steps)
        setting = Setting(recipe.workers, recipe.prefetch_factor)
        if tuning is not None:
            setting = Setting(tuning.workers, tuning.prefetch_factor)
            self._recipe = recipe = recipe.model_copy(update=vars(setting))
        rows: list[DetectionEpoch] = []
        last = _Epoch()
        loading = self._loader(setting)
        free_unused(self._device)
        with torch.enable_grad(), garbage_collection_off(), UsageSampler(self._device) as sampler:
            for epoch in range(1, recipe.epochs + 1):
                # Loading processes stay: the loader is made once.
                row, last = self._epoch(epoch, loading)
                rows.append(row)
                gc.collect()
        record = self._record(rows, last, sampler.usage(), tuning)
        self._write(record)
        log.info("finished: %s", self.folder)
        return Detected(record, self.folder, self._model)

    def _loader(self, setting: Setting) -> DataLoader[BoxedBatch]:
        return batches(
            self._images,
            self._splits.files[0],
            self._order,
            seed=self._recipe.seed,
            workers=setting.workers,
            prefetch_factor=setting.prefetch_factor,
            pinned=self._device.kind == "cuda",
            most_pixels=self._most_pixels,
        )

    # --- before the first epoch --------------------------------------------------------------

    def _tuning(self, steps: int) -> Tuning:
        recipe = self._recipe

        def run(setting: Setting, goes_on: Callable[[Stepped], bool]) -> None:
            with torch.enable_grad(), garbage_collection_off():
                self._tried(setting, goes_on)

        tuning = tune(
            settings(usable_cores(), recipe.workers, recipe.prefetch_factor),
            run,
            warmup=TUNE_WARMUP,
            steps=steps,
            progress=self._progress,
        )
        log.info(
            "tuned: num_workers = %d, prefetch_factor = %d", tuning.workers, tuning.prefetch_factor
        )
        return tuning

    def _tried(self, setting: Setting, goes_on: Callable[[Stepped], bool]) -> None:
        """Train over as many stretches of the set as it takes."""
        loading = self._loader(setting)
        while True:
            self._order.set(0, 0, None)
            reading = Readable(iter(loading), self._recipe.unreadable)
            ran = False
            with suppress(NoMoreBatches):
                for _ in range(len(self._order)):
                    stepped = self._stepper.step(reading.next)
                    self._room.conditions.take()
                    ran = True
                    if not goes_on(stepped):
                        return
            if not ran:
                raise DataError(NOTHING_READ)

    # --- an epoch ----------------------------------------------------------------------------

    def _epoch(self, epoch: int, loading: DataLoader[BoxedBatch]) -> tuple[DetectionEpoch, _Epoch]:
        recipe = self._recipe
        self._order.set(epoch, 0, recipe.limit)
        total = len(self._order)
        done = _Epoch()
        self._device.begin_peak()
        begins = time.perf_counter()
        reading = Readable(iter(loading), recipe.unreadable)
        while len(done.steps) + done.watched < total:
            if epoch == 1 and self._due(len(done.steps), total):
                self._profile(reading, done, total)
                continue
            torch.manual_seed(mixed(recipe.seed, STEP, epoch, len(done.steps)))
            try:
                done.steps.append(self._stepper.step(reading.next))
                self._room.conditions.take()
            except NoMoreBatches:
                break
            self._tell(epoch, done, total)
        took = time.perf_counter() - begins
        if not done.steps:
            raise DataError(NOTHING_READ)
        self._unreadable += reading.names[: max(0, 20 - len(self._unreadable))]
        row = self._row(epoch, done, took, reading.skipped)
        self._log_epoch(row)
        return row, done

    def _due(self, steps: int, total: int) -> bool:
        """Whether the epoch's last steps have come, which are profiled, if others went before.

        Last, because the loader goes on while the profile is worked out: what came after would
        find its images ready.
        """
        watched = self._recipe.profile_steps
        return (
            self._profiled is None
            and not self._cannot_profile
            and watched > 0
            and steps > 0
            # The profiler throws one step away.
            and steps == total - watched - 1
        )

    def _profile(self, reading: Readable, done: _Epoch, total: int) -> None:
        def stepped(images: int) -> None:
            done.watched += 1
            done.watched_images += images
            self._room.conditions.take()
            self._tell(1, done, total)

        try:
            self._profiled = profile_steps(
                self._stepper,
                reading.next,
                self._recipe.profile_steps,
                self._device,
                self.folder / TRACE,
                stepped,
            )
        except NoMoreBatches:
            # Batches of which no image could be read: the epoch is shorter than it seemed.
            self._cannot_profile = True

    def _tell(self, epoch: int, done: _Epoch, total: int) -> None:
        at = len(done.steps) + done.watched
        self._progress.step(f"Epoch {epoch}/{self._recipe.epochs}", at, total)

    def _row(self, epoch: int, done: _Epoch, took: float, skipped: int) -> DetectionEpoch:
        steps = done.steps
        images = sum(step.images for step in steps)
        losses = {
            name: sum(step.losses[name] for step in steps) / len(steps) for name in steps[0].losses
        }
        phases = [sum(column) for column in zip(*(s.timed.phases_ns for s in steps), strict=True)]
        inside = sum(phases) * NANOSECOND
        peak = self._device.peak()
        return DetectionEpoch(
            epoch=epoch,
            steps=len(steps) + done.watched,
            images=images + done.watched_images,
            loss=sum(losses.values()),
            losses=losses,
            train_s=took,
            images_per_s=images / inside,
            phases_s=step_statistics.phases_s(phases),
            unreadable=skipped,
            allocated=None if peak is None else peak.allocated,
            reserved=None if peak is None else peak.reserved,
            resident=resident_peak(),
        )

    # --- the record --------------------------------------------------------------------------

    def _record(
        self, rows: list[DetectionEpoch], last: _Epoch, usage: Usage, tuning: Tuning | None
    ) -> DetectionRun:
        recipe, profiled = self._recipe, self._profiled
        # The first steps of a run are slower; those of a later epoch are not its first.
        counted = last.steps[recipe.warmup if len(rows) == 1 else 0 :] or last.steps
        times = [step.timed.phases_ns for step in counted]
        parts = part_times(self._stepper.parts, [step.timed for step in counted])
        phases = step_statistics.phase_rows(times)
        return DetectionRun(
            recipe=recipe,
            environment=self._room.finish(),
            model_type=type(self._model).__name__,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            images=len(self._images),
            classes=tuple(self._splits.classes),
            epochs=tuple(rows),
            measured=len(counted),
            step=step_statistics.step_summary(times),
            phases=phases,
            parts=parts.with_column("kept", {} if profiled is None else profiled.kept),
            parts_ratio=parts.ratio,
            outside_s=parts.outside_s,
            recomputation=parts.recomputation,
            boxes=boxes_in(counted),
            trained=found_in(counted),
            operators=() if profiled is None else profiled.operators,
            profiled=0 if profiled is None else profiled.steps,
            profiled_s=None if profiled is None else profiled.step_s,
            usage=usage,
            bottleneck=judge(
                {phase.name: phase.time.mean for phase in phases},
                self._busy(phases),
                on_cpu=self._device.kind == "cpu",
                workers=recipe.workers,
                prefetch_factor=recipe.prefetch_factor,
            ),
            tuning=tuning,
            unreadable=tuple(self._unreadable),
            notes=tuple(self._notes(rows, last, tuning)),
        )

    def _busy(self, phases: Sequence[PhaseRow]) -> float | None:
        """On an accelerator the kernels' time is of profiled steps, the phases' of others."""
        profiled = self._profiled
        working = sum(phase.time.mean for phase in phases if phase.name in WORKING)
        if profiled is None or profiled.kernels_s is None or working <= 0:
            return None if profiled is None else profiled.busy
        return min(1.0, profiled.kernels_s / working)

    def _notes(
        self, rows: list[DetectionEpoch], last: _Epoch, tuning: Tuning | None
    ) -> Iterator[str]:
        yield from self._splits.notes
        yield from note_on_checkpointed(self._model, self._recipe.checkpoint_activations)
        if models.wants_keypoints(self._model):
            yield MADE_UP_KEYPOINTS
        if tuning is not None:
            yield "the steps that tried the loader's settings trained the weights before epoch 1"
        if len(rows) == 1 and len(last.steps) <= self._recipe.warmup:
            yield "the epoch is shorter than the warm-up: its steps count all the same"
        if self._profiled is not None:
            yield (
                "epoch 1 took longer by what working out the profile took; images/s is of its "
                "other steps"
            )
        if self._recipe.profile_steps and self._profiled is None:
            yield (
                "no step was profiled: an epoch is too short for "
                f"{self._recipe.profile_steps} profiled steps besides others"
            )

    def _write(self, record: DetectionRun) -> None:
        """Reports, weights and pictures, each whole or as it was; the record last."""
        folder = self.folder
        if self._save_weights:
            run_folder.write_weights(self._model, folder)
        writing.write_text(folder / REPORT, reporters.render("txt", record))
        writing.write_text(folder / "metrics.csv", reporters.render("csv", record))
        if record.usage is not None and record.usage.samples:
            writing.write_bytes(folder / "utilization.png", plots.utilization(record))
        writing.write_text(folder / RECORD, reporters.render("json", record))

    def _log_start(self) -> None:
        recipe = self._recipe
        log.info(
            "%s on %s: %d images to train on, %d classes; %d steps of %d images an epoch; %s; "
            "into %s",
            recipe.model,
            recipe.data,
            len(self._images),
            len(self._splits.classes),
            min(self._order.steps, recipe.limit or self._order.steps),
            recipe.batch,
            self._device.describe().name,
            self.folder,
        )

    def _log_epoch(self, row: DetectionEpoch) -> None:
        log.info(
            "epoch %d/%d: loss %.4f (%s); %.1f s, %.2f images/s",
            row.epoch,
            self._recipe.epochs,
            row.loss,
            ", ".join(f"{name} {loss:.4f}" for name, loss in row.losses.items()),
            row.train_s,
            row.images_per_s,
        )
        if row.unreadable:
            log.warning("%d images could not be read and were left out", row.unreadable)
