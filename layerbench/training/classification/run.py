"""A training run, readable as a list of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from layerbench.environment import devices, precision
from layerbench.environment.run_context import (
    free_unused,
    memory_explained,
    threads_set,
    watch_environment,
)
from layerbench.errors import (
    LayerbenchError,
    ModelRunError,
    NotEnoughMemory,
    TrainingStopped,
    UsageError,
)
from layerbench.instruments.checkpointed import checkpointed, note_on_checkpointed
from layerbench.instruments.resident_memory import resident_peak
from layerbench.profilers.memory.predicted import check_memory_fits
from layerbench.profilers.progress import Progress, Silent
from layerbench.profilers.sweep import flops_of
from layerbench.records.recipes import Recipe
from layerbench.records.sweep import SweepPoint
from layerbench.records.training_run import EpochRow, Outcome, RankTimes, TrainingRun
from layerbench.training import checkpoints, run_folder, step_statistics
from layerbench.training.batches import Batch, EpochBatches, EveryImage, Samples, collate, loader
from layerbench.training.checkpoints import Checkpoint
from layerbench.training.classification.distributed import Ranks, joined
from layerbench.training.classification.memory_advice import memory_advice
from layerbench.training.classification.models import build_classifier
from layerbench.training.classification.options import RunOptions
from layerbench.training.classification.setup import check, open_data
from layerbench.training.classification.trained_model import TrainedModel
from layerbench.training.classification.trainer import (
    NAMED,
    Between,
    Seen,
    StepTimes,
    Sums,
    Trainer,
    Validated,
    steps_of,
)
from layerbench.training.run_folder import log, log_epoch

MINUTE = 60.0
DRAWN_EVERY_S = 10.0
FEW_CLASSES = 6


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        record: the run's.
        folder: everything that it wrote.
        model: with the weights of the last epoch, on its device.
    """

    record: TrainingRun
    folder: Path
    model: nn.Module


def run_training(recipe: Recipe, where: RunOptions, *, progress: Progress | None = None) -> Trained:
    """Train, and write everything that a run writes.

    Under torchrun, all processes call this; the first writes.

    Args:
        recipe: what is trained, and how; its ``ranks`` is found here.
        where: where it happens.
        progress: hears of each step.

    Raises:
        TrainingStopped: a loss is no number; the last checkpoint stays.
        DataError: the data are not there, or an image cannot be read.
        NotEnoughMemory: what a step needs, and the batch that would fit.
        WorkerError: another process of the training ended; the message names it.
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    with ExitStack() as held:
        held.enter_context(threads_set(where.threads))
        ranks = held.enter_context(joined(where.device))
        held.enter_context(torch.random.fork_rng(devices=[]))
        heard = (progress or Silent()) if ranks.first else Silent()
        of_all_ranks = recipe.model_copy(update={"ranks": ranks.count})
        run = _Run(of_all_ranks, where, ranks, heard, held)
        if ranks.first:
            held.enter_context(run_folder.logged(run.folder))
        try:
            return run.run()
        except KeyboardInterrupt:
            run.tell_interrupted()
            raise


@dataclass
class _State:
    """How far a run has come.

    Attributes:
        epoch, step: to go on with.
        sums: of that epoch so far, this process's share.
    """

    epoch: int = 1
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    rows: list[EpochRow] = field(default_factory=list)
    resumed_after: tuple[int, ...] = ()
    unreadable: list[str] = field(default_factory=list)


class _Run:
    """One run in this process."""

    def __init__(
        self, recipe: Recipe, where: RunOptions, ranks: Ranks, progress: Progress, held: ExitStack
    ) -> None:
        self._where = where
        named = isinstance(where.resume, Path)
        self._option = checkpoints.RESUME_FROM if named else checkpoints.RESUME
        # Closed when the run ends, however it does.
        self._held = held
        self._kept: tuple[int, int] | None = None
        self._ranks, self._progress = ranks, progress
        self._workload = check(recipe)
        self._recipe = recipe = recipe.model_copy(update={"model": self._workload.model})
        self._device = devices.get(where.device if ranks.count == 1 else str(ranks.device))
        held.enter_context(precision.precision_set(recipe.precision, self._device))
        self._room = watch_environment(self._device)
        self._free = self._device.memory().free_bytes
        # The first process may have to fetch them; the others then find them there.
        self._splits = ranks.one_after_the_first(lambda: open_data(recipe, where))
        self._order = EpochBatches(
            len(self._splits.train), recipe.batch, recipe.seed, ranks.rank, ranks.count
        )
        steps = steps_of(recipe, min(self._order.steps, recipe.limit or self._order.steps))
        self._model = self._built()
        self._trained = TrainedModel(self._model, recipe, self._workload, self._device)
        self._flops = (
            flops_of(self._trained.inference(1), self._trained.subject(1)) if ranks.first else None
        )
        # From here on it leaves something behind.
        self.folder = ranks.agreed(self._folder() if ranks.first else Path())
        self._checkpoint = self._read_checkpoint()
        self._earlier = run_folder.last_record(self.folder) if where.resume else None
        self._trainer = Trainer(
            self._model, recipe, self._device, ranks, steps, progress, timed=where.time_all_reduce
        )
        self._last_checkpoint, self._drawn = time.monotonic(), -math.inf
        self._times = StepTimes()

    # --- before the first step -------------------------------------------------------------

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self.folder / run_folder.CHECKPOINT
        if not self._where.resume:
            return None
        # Asked once: a process that does not see the file must not begin anew by itself.
        if not self._ranks.agreed(path.is_file()):
            begun, place = run_folder.begun_recipe(self.folder), self.folder / run_folder.RECIPE
            checkpoints.check_same(self._recipe, begun, place, self._option)
            return None
        checkpoint = checkpoints.read(path, self._option)
        checkpoints.check_same(self._recipe, checkpoint.recipe, path, self._option)
        if checkpoint.images != len(self._splits.train):
            raise UsageError(
                f"{path} is of a data set with {checkpoint.images} images to train on; now it has "
                f"{len(self._splits.train)}"
            )
        return checkpoint

    def _folder(self) -> Path:
        resume, below = self._where.resume, self._where.output_dir
        if isinstance(resume, Path):
            named = run_folder.check_folder(resume)
            self._held.enter_context(run_folder.alone(named, self._option))
            return named
        unfinished = run_folder.latest(self._recipe, below) if resume else None
        if unfinished is not None:
            self._held.enter_context(run_folder.alone(unfinished))
            run_folder.clear_away(unfinished)
            return unfinished
        new = run_folder.new_folder(self._recipe, below, run_folder.prefix(self._recipe))
        self._held.enter_context(run_folder.alone(new))
        return new

    def _built(self) -> nn.Module:
        with self._memory_explained():
            check_memory_fits(self._workload, self._device, "adamw")
            model = build_classifier(self._workload, len(self._splits.classes))
            checkpointed(model, self._recipe.checkpoint_activations)  # refuses what is not there
            return model.to(self._device.torch_device)

    def _resumed(self) -> _State:
        checkpoint = self._checkpoint
        if checkpoint is None:
            return _State()
        try:
            self._trainer.load(checkpoint.states, epoch=checkpoint.epoch, step=checkpoint.step)
        except ModelRunError as error:
            path = self.folder / run_folder.CHECKPOINT
            raise checkpoints.unreadable(path, str(error), self._option) from error
        self._kept = (checkpoint.epoch, checkpoint.step)
        # The sums are of all processes: the first goes on with them, the others from nothing.
        sums = Sums(**checkpoint.sums) if self._ranks.first and checkpoint.sums else Sums()
        done = len(checkpoint.rows)
        ended = checkpoint.step == 0 and step_statistics.best_epoch(checkpoint.rows) == done
        if self._ranks.first and ended:
            # It may have been killed before these weights, the best so far, were written.
            run_folder.write_weights(self._model, self.folder)
        log.info("resuming after epoch %d, step %d", done, checkpoint.step)
        return _State(
            checkpoint.epoch,
            checkpoint.step,
            sums,
            list(checkpoint.rows),
            (*checkpoint.resumed_after, done),
            list(checkpoint.unreadable),
        )

    # --- the run ---------------------------------------------------------------------------

    def run(self) -> Trained:
        recipe = self._recipe
        self._log_start()
        state = self._resumed()
        training, validation = self._loaders()
        free_unused(self._device)
        self._device.begin_peak()
        outcome: Outcome = "finished"
        while state.epoch <= recipe.epochs:
            if step_statistics.out_of_patience(recipe, state.rows):
                outcome = "stopped early"
                break
            with self._stop_explained(), self._memory_explained():
                row = self._epoch(state, training, validation)
                state.rows.append(row)
                state.epoch, state.step, state.sums = state.epoch + 1, 0, Sums()
                self._write_checkpoint(state)
            self._finish_epoch(state, row)
        return self._finish(state, outcome)

    def _loaders(self) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        recipe, ranks, splits = self._recipe, self._ranks, self._splits
        everything = EveryImage(
            len(splits.val), recipe.batch, ranks.rank, ranks.count, recipe.limit
        )
        training, validation = (
            loader(
                Samples(images, name, recipe.seed, self._where.most_pixels),
                order,
                workers=self._where.workers,
                collate=collate,
                pinned=self._device.kind == "cuda",
            )
            for images, name, order in (
                (splits.train, splits.files[0], self._order),
                (splits.val, splits.files[1], everything),
            )
        )
        return training, validation

    def _epoch(
        self, state: _State, training: DataLoader[Batch], validation: DataLoader[Batch]
    ) -> EpochRow:
        started = time.perf_counter()
        sums, self._times, unreadable = self._trainer.train(
            state.epoch,
            self._order,
            training,
            start=state.step,
            sums=state.sums,
            between=self._between(state),
            look_every=1 if self._where.checkpoint_minutes == 0 else None,
        )
        trained = time.perf_counter()
        validated = self._trainer.validate(validation)
        if not math.isfinite(validated.loss):
            raise TrainingStopped(
                f"the validation's loss after epoch {state.epoch} is {validated.loss}: the "
                "training stops"
            )
        ended = time.perf_counter()
        state.unreadable = self._names(state, [*unreadable, *validated.unreadable])
        return self._row(state, sums, validated, trained - started, ended - trained)

    def _names(self, state: _State, more: list[str]) -> list[str]:
        """The first unreadable images of all processes."""
        gathered = [name for names in self._ranks.gathered(more) for name in names]
        return list(dict.fromkeys([*state.unreadable, *gathered]))[:NAMED]

    @contextmanager
    def _memory_explained(self) -> Iterator[None]:
        """Say what a step needs and what would fit where memory runs out."""
        try:
            with memory_explained(self._device):
                yield
        except NotEnoughMemory as error:
            advice = memory_advice(self._recipe, self._workload, self._device, self._free)
            raise NotEnoughMemory(advice) from error

    @contextmanager
    def _stop_explained(self) -> Iterator[None]:
        """Say where the last good state is, and log how it ended."""
        try:
            yield
        except TrainingStopped as error:
            kept = self.folder / run_folder.CHECKPOINT
            where = f"the last good state is in {kept}" if kept.is_file() else "no state was kept"
            log.error("%s; %s", error, where)
            raise TrainingStopped(f"{error}; {where}") from error
        except LayerbenchError as error:
            log.error("%s", error)
            raise

    def tell_interrupted(self) -> None:
        """Say what was kept and how to go on."""
        if not self._ranks.first:
            return
        kept = "nothing but the recipe, so that it begins anew"
        if self._kept is not None:
            kept = "the state before epoch {}, step {}".format(*self._kept)
        log.error("interrupted: kept is %s; go on with --resume_from %s", kept, self.folder)

    def _between(self, state: _State) -> Between:
        """Looks at the device; writes a checkpoint when it is time, at a step where all do."""

        def between(done: int, seen: Seen) -> bool:
            self._room.conditions.take()
            due = time.monotonic() - self._last_checkpoint >= (
                self._where.checkpoint_minutes * MINUTE
            )
            if done < self._trainer.steps and self._ranks.agreed(due):
                total = self._ranks.sums(list(seen.sums.as_dict().values()))
                held = dict(zip(seen.sums.as_dict(), total, strict=True))
                state.unreadable = self._names(state, seen.unreadable)
                self._write_checkpoint(state, done, held)
            return False

        return between

    def _write_checkpoint(
        self, state: _State, step: int = 0, sums: dict[str, float] | None = None
    ) -> None:
        self._last_checkpoint = time.monotonic()
        self._trainer.check_finite()
        if not self._ranks.first:
            return
        checkpoints.write(
            self.folder / run_folder.CHECKPOINT,
            Checkpoint(
                self._recipe,
                state.epoch,
                step,
                self._trainer.states(),
                sums or {},
                tuple(state.rows),
                state.resumed_after,
                tuple(state.unreadable),
                len(self._splits.train),
            ),
        )
        self._kept = (state.epoch, step)

    def _row(
        self, state: _State, sums: Sums, validated: Validated, train_s: float, validation_s: float
    ) -> EpochRow:
        total = Sums(*self._ranks.sums(list(sums.as_dict().values())))
        peak = self._device.peak()
        images = max(1.0, total.images)
        ran = (self._trainer.steps - state.step) * self._recipe.step_images * self._ranks.count
        skipped = self._ranks.sums([len(validated.unreadable)])[0]
        return EpochRow(
            epoch=state.epoch,
            steps=self._trainer.steps,
            lr=self._trainer.last_lr,
            train_loss=total.loss / images,
            train_accuracy=total.correct / images,
            val_loss=validated.loss,
            val_accuracy=validated.accuracy,
            val_top5=None if len(self._splits.classes) < FEW_CLASSES else validated.top5,
            train_s=train_s,
            validation_s=validation_s,
            images_per_s=ran / train_s,
            phases_s=step_statistics.phases_s(self._times.total),
            unreadable=int(total.unreadable + skipped),
            allocated=None if peak is None else peak.allocated,
            reserved=None if peak is None else peak.reserved,
            resident=resident_peak(),
        )

    def _finish_epoch(self, state: _State, row: EpochRow) -> None:
        log_epoch(row, self._recipe.epochs, unreadable=self._ranks.first)
        ranks = self._gathered()
        if not self._ranks.first:
            return
        if step_statistics.best_epoch(state.rows) == row.epoch:
            run_folder.write_weights(self._model, self.folder)
        # Drawing takes longer than a short epoch; after the last one all is drawn again.
        due = time.monotonic() - self._drawn >= DRAWN_EVERY_S
        run_folder.write_reports(self._record(state, "running", ranks), self.folder, pictures=due)
        if due:
            self._drawn = time.monotonic()

    # --- after the last step ---------------------------------------------------------------

    def _finish(self, state: _State, outcome: Outcome) -> Trained:
        ranks = self._gathered()
        wanted = self._where.points and self._ranks.first
        points = self._trained.latency(self._progress, self._room.conditions) if wanted else ()
        record = self._record(state, outcome, ranks, points)
        if self._ranks.first:
            run_folder.write_reports(record, self.folder)
            log.info("%s: %s", outcome, self.folder)
        return Trained(record, self.folder, self._model)

    def _gathered(self) -> list[RankTimes]:
        """Each process's step times of the last epoch; none where no step ran here."""
        step = step_statistics.step_summary(self._times.phases)
        mine = (
            None
            if step is None
            else RankTimes(
                rank=self._ranks.rank,
                machine=self._ranks.machine,
                device=str(self._device.torch_device),
                step=step,
                all_reduce=step_statistics.summary(self._times.all_reduce),
                conditions=self._room.conditions.conditions(),
            )
        )
        gathered = [times for times in self._ranks.gathered(mine) if times is not None]
        # Taken up after the last step, there is nothing new to say.
        return gathered or list(self._earlier.ranks if self._earlier else ())

    def _record(
        self,
        state: _State,
        outcome: Outcome,
        ranks: list[RankTimes],
        points: tuple[SweepPoint, ...] = (),
    ) -> TrainingRun:
        step = step_statistics.step_summary(self._times.phases)
        phases = step_statistics.phase_rows(self._times.phases)
        if step is None and self._earlier is not None:
            step, phases = self._earlier.step, self._earlier.phases
        return TrainingRun(
            recipe=self._recipe,
            outcome=outcome,
            environment=self._room.finish(),
            model_type=type(self._model).__name__,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            flops=self._flops,
            classes=len(self._splits.classes),
            train_images=len(self._splits.train),
            val_images=len(self._splits.val),
            epochs=tuple(state.rows),
            best_epoch=step_statistics.best_epoch(state.rows),
            resumed_after=state.resumed_after,
            step=step,
            phases=phases,
            ranks=tuple(ranks),
            points=points,
            unreadable=tuple(state.unreadable),
            notes=note_on_checkpointed(self._model, self._recipe.checkpoint_activations),
        )

    def _log_start(self) -> None:
        recipe, splits = self._recipe, self._splits
        log.info(
            "%s on %s: %d images to train on, %d to validate, %d classes; %d steps of %d images "
            "an epoch, %d epochs; %s; into %s",
            recipe.model,
            recipe.data,
            len(splits.train),
            len(splits.val),
            len(splits.classes),
            self._trainer.steps,
            recipe.step_images * self._ranks.count,
            recipe.epochs,
            self._device.describe().name,
            self.folder,
        )
