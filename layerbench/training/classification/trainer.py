"""Epochs: steps that train, and what they took; a validation after each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.precision import autocast
from layerbench.environment.run_context import model_errors
from layerbench.errors import DataError, ModelRunError, TrainingStopped, first_line
from layerbench.instruments.checkpointed import checkpointing
from layerbench.instruments.step_timer import Step, run_phases
from layerbench.profilers.optimizers import adam_eps
from layerbench.profilers.progress import Progress
from layerbench.records.recipes import Recipe
from layerbench.records.training_step import STEP_PHASES
from layerbench.records.workload import FORMATS
from layerbench.training.batches import STEP, Batch, EpochBatches, check_readable, next_batch
from layerbench.training.classification.distributed import AllReduceTimer, Ranks
from layerbench.training.classification.lr_schedule import factor
from layerbench.training.classification.models import classification_loss, logits_of
from layerbench.training.learning import Learner, in_format
from layerbench.training.seeds import mixed

# Losses are looked at, and marks turned into times, after so many steps, where a look waits for
# the device or for other processes; else after each.
LOOK_EVERY = 10
# Of the names of unreadable images, so many are kept.
NAMED = 20
# Of the steps' times, the last so many are kept.
KEPT = 5000
TOP = 5
REMEDY = "a smaller --lr, a longer --warmup_epochs or float32 may help"

Loader = Any  # an iterable of Batch
Between = Callable[[int, "Seen"], bool]


@dataclass
class Sums:
    """What an epoch has added up so far; sums of one process."""

    loss: float = 0.0
    correct: float = 0.0
    images: float = 0.0
    unreadable: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """By name, for a checkpoint."""
        return dict(vars(self))


@dataclass
class StepTimes:
    """Nanoseconds of the steps of one epoch in this process.

    Attributes:
        phases: one tuple a step, in the order of `STEP_PHASES`.
        all_reduce: one a step; empty for a process alone, and where it is not timed.
        total: all steps' phases added up, also of those no longer kept.
    """

    phases: list[tuple[int, ...]] = field(default_factory=list)
    all_reduce: list[int] = field(default_factory=list)
    total: list[int] = field(default_factory=lambda: [0] * len(STEP_PHASES))

    def add(self, phases: tuple[int, ...]) -> None:
        """A step."""
        self.phases.append(phases)
        self.total = [a + b for a, b in zip(self.total, phases, strict=True)]
        if len(self.phases) > KEPT:
            del self.phases[: -KEPT // 2], self.all_reduce[: -KEPT // 2]


@dataclass(frozen=True)
class Validated:
    """What a validation found, over all processes."""

    loss: float
    accuracy: float
    top5: float
    images: int
    unreadable: tuple[str, ...]


def steps_of(recipe: Recipe, batches: int) -> int:
    """Steps of an epoch of so many batches; those that do not fill a step are left out.

    Raises:
        DataError: they do not fill one.
    """
    steps = batches // recipe.gradient_accumulation
    if not steps:
        raise DataError(
            f"an epoch has {batches} batches of {recipe.batch}, fewer than the "
            f"{recipe.gradient_accumulation} of a step: take a smaller --gradient-accumulation"
        )
    return steps


class Trainer:
    """A model that learns, with everything that a step needs.

    Args:
        model: on the device, in the recipe's format.
        recipe: how it learns.
        device: where.
        ranks: this process among those that train together.
        steps: of an epoch; see `steps_of`.
        progress: hears of each step.
        timed: whether the gradients' way between processes is.
        goes_on: also where a loss is no number.

    Attributes:
        steps: of an epoch.
        last_lr: the learning rate of the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        device: Device,
        ranks: Ranks,
        steps: int,
        progress: Progress,
        *,
        timed: bool = False,
        goes_on: bool = False,
    ) -> None:
        self.model = model
        self._recipe = recipe
        self._device = device
        self._ranks = ranks
        self._progress = progress
        self._micro_batches = recipe.gradient_accumulation
        self.steps = steps
        self._learner = Learner(
            recipe.model,
            model,
            device,
            recipe.precision,
            lambda parameters: torch.optim.AdamW(
                parameters,
                lr=recipe.lr,
                weight_decay=recipe.weight_decay,
                eps=adam_eps(parameters),
            ),
        )
        self._wrapped = ranks.wrap(model)
        self._done = 0
        self._set_rate()
        self.last_lr = self.lr
        self._clock = device.clock()
        self._reduced = AllReduceTimer(self._wrapped, ranks, device.clock(), asked=timed)
        self._goes_on = goes_on
        self._images_as = (
            device.torch_device,
            getattr(torch, FORMATS[recipe.precision]),
            torch.channels_last if recipe.channels_last else torch.contiguous_format,
        )

    # --- what a checkpoint keeps -----------------------------------------------------------

    def states(self) -> dict[str, Any]:
        """Of model, optimizer and scaler."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._learner.optimizer.state_dict(),
            "scaler": self._learner.scaler.state_dict(),
        }

    def check_finite(self) -> None:
        """Refuse weights that are not finite: a gradient can overflow where the loss did not.

        Raises:
            TrainingStopped: some are not finite.
        """
        finite = [torch.isfinite(parameter.detach()).all() for parameter in self.model.parameters()]
        if not bool(torch.stack(finite).all()):
            raise TrainingStopped(
                f"some weights are no longer finite: the training stops; {REMEDY}"
            )

    def load(self, states: Mapping[str, Any], *, epoch: int, step: int) -> None:
        """Go on from a checkpoint's states, before this step of this epoch.

        Raises:
            ModelRunError: they are of another model.
        """
        try:
            self.model.load_state_dict(states["model"])
            self._learner.load(states["optimizer"], states["scaler"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelRunError(
                f"its states are not those of a training of {self._recipe.model}: "
                f"{first_line(error)}"
            ) from error
        self._done = (epoch - 1) * self.steps + step
        self._set_rate()

    def _set_rate(self) -> None:
        total = self._recipe.epochs * self.steps
        warmup = min(round(self._recipe.warmup_epochs * self.steps), total - 1)
        for group in self._learner.optimizer.param_groups:
            group["lr"] = self._recipe.lr * factor(self._done, warmup=warmup, total=total)

    @property
    def lr(self) -> float:
        """Of the next step."""
        return float(self._learner.optimizer.param_groups[0]["lr"])

    # --- training --------------------------------------------------------------------------

    def train(
        self,
        epoch: int,
        order: EpochBatches,
        loader: Loader,
        *,
        start: int = 0,
        sums: Sums | None = None,
        between: Between = lambda _step, _seen: False,
        look_every: int | None = None,
    ) -> tuple[Sums, StepTimes, list[str]]:
        """The steps of an epoch.

        Args:
            epoch: from 1.
            order: what the loader's batches follow.
            loader: gives the batches.
            start: the step to begin with; it and the number of steps are those of the optimizer.
            sums: of the steps before it.
            between: called after a look, with the number of steps done and what has been seen of
                the epoch; says whether it ends there.
            look_every: steps between looks; ``None`` for as many as are worth it.

        Returns:
            the epoch's sums, the steps' times, and the names of unreadable images.

        Raises:
            TrainingStopped: a loss is no number.
            DataError: an image cannot be read, and the recipe says that this is fatal.
        """
        alone = self._device.kind == "cpu" and self._ranks.count == 1
        look_every = look_every or (1 if alone else LOOK_EVERY)
        micro_batches = self._micro_batches
        order.set(epoch, start * micro_batches, self.steps * micro_batches)
        self._wrapped.train()
        checkpoints = checkpointing(self.model, self._recipe.checkpoint_activations)
        seen = Seen(self, sums or Sums())
        iterator = iter(loader)
        self._clock.reserve(look_every * micro_batches * (len(STEP_PHASES) + 1))
        for number in range(start, self.steps):
            with checkpoints():
                seen.add(self._step(iterator, epoch, number))
            done = number + 1
            if done % look_every == 0 or done == self.steps:
                seen.look(epoch, done)
                self._progress.step(f"epoch {epoch}/{self._recipe.epochs}", done, self.steps)
                if between(done, seen):
                    break
        return seen.sums, seen.times, seen.unreadable

    def _step(self, iterator: Iterator[Batch], epoch: int, number: int) -> _Stepped:
        """A step of the optimizer, from one micro-batch or several."""
        stepped = _Stepped()
        with self._ranks.named():
            for part in range(self._micro_batches):
                at = number * self._micro_batches + part
                torch.manual_seed(mixed(self._recipe.seed, STEP, epoch, at, self._ranks.rank))
                last = part == self._micro_batches - 1
                with nullcontext() if last else self._unshared():
                    self._micro_batch(iterator, stepped)
            if stepped.micro_batches:
                stepped.marks = [stepped.micro_batches[-1][-1]]
                with self._explained("the optimizer"):
                    self._learner.update()
                stepped.marks.append(self._clock.mark())
        self._advance()
        self._reduced.end_step()
        return stepped

    def _micro_batch(self, iterator: Iterator[Batch], stepped: _Stepped) -> None:
        """Forward and backward of a batch; one without a readable image is left out."""
        marks: list[int] = []
        pieces = self._pieces(iterator, stepped)
        for mark, done, made in run_phases(pieces, self._clock.mark):
            marks.append(mark)
            if done == "data":
                stepped.unreadable += made.unreadable
                if not self._can_train(made):
                    return
            elif done == "loss":
                stepped.losses.append(made.detach())
            elif done == "backward":
                break
        stepped.micro_batches.append(marks)

    def _unshared(self) -> AbstractContextManager[object]:
        """What all micro-batches of a step but the last one run in: gradients travel once."""
        share: Any = getattr(self._wrapped, "no_sync", None)
        return nullcontext() if self._ranks.count == 1 or share is None else share()

    def _pieces(self, iterator: Iterator[Batch], stepped: _Stepped) -> Step:
        def forward(batch: Batch) -> Any:  # noqa: ANN401 - whatever the model returns
            with self._autocast():
                return self._call(batch)

        def loss(output: Any, batch: Batch) -> torch.Tensor:  # noqa: ANN401 - as above
            with self._autocast(), self._explained("the loss"):
                total = classification_loss(output, batch.labels)
            stepped.answers.append((logits_of(output).detach(), batch.labels))
            return total

        def backward(loss: torch.Tensor) -> None:
            with self._explained("the backward"):
                parts = self._micro_batches
                self._learner.backward(loss if parts == 1 else loss / parts)

        return Step(
            fetch=lambda: next_batch(iterator),
            move=lambda batch: batch.to(*self._images_as),
            forward=forward,
            loss=loss,
            backward=backward,
            update=lambda: None,
        )

    def _call(self, batch: Batch) -> Any:  # noqa: ANN401 - whatever the model returns
        with self._explained("the forward"):
            return self._wrapped(batch.images)

    def _explained(self, what: str) -> AbstractContextManager[object]:
        """Turn what PyTorch raises into one line that says what cannot be computed."""
        if self._ranks.count > 1:
            # What another process's end raises is explained by `Ranks.named`.
            return nullcontext()
        where = in_format(self._recipe.precision)
        return model_errors(self._device, f"{self._recipe.model}: {what}{where} failed")

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self._recipe.precision, self._device.torch_device.type)

    def _advance(self) -> None:
        self.last_lr = self.lr
        self._done += 1
        self._set_rate()

    def _can_train(self, batch: Batch) -> bool:
        """Whether the batch has images; a batch without a readable image is left out.

        Raises:
            DataError: an image cannot be read and that is fatal; or no image of this batch can,
                while other processes wait for its gradients.
        """
        check_readable(batch.unreadable, self._recipe.unreadable)
        if batch.images is None and self._ranks.count > 1:
            raise DataError(
                f"none of the {len(batch.unreadable)} images of a batch can be read, the first "
                f"being {batch.unreadable[0]}: with several processes each batch needs one"
            )
        return batch.images is not None

    # --- validation ------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, loader: Loader) -> Validated:
        """Loss and accuracy over a loader's images.

        Raises:
            DataError: an image cannot be read, and the recipe says that this is fatal.
        """
        self._ranks.same_buffers(self.model)
        self.model.eval()
        sums = [0.0, 0.0, 0.0, 0.0]
        unreadable: list[str] = []
        total = len(loader)
        iterator = iter(loader)
        for number in range(total):
            batch = next_batch(iterator)
            check_readable(batch.unreadable, self._recipe.unreadable)
            unreadable += batch.unreadable
            if batch.images is None:
                continue
            here = batch.to(*self._images_as)
            with self._autocast(), self._explained("the validation"):
                output = self.model(here.images)
                loss = classification_loss(output, here.labels)
            hits = _hits(logits_of(output), here.labels)
            count = len(here.labels)
            for index, value in enumerate((float(loss) * count, *hits, count)):
                sums[index] += value
            self._progress.step("validation", number + 1, total)
        loss_sum, first, top, images = self._ranks.sums(sums)
        if images == 0:
            raise DataError("no image of the validation could be read")
        return Validated(
            loss_sum / images, first / images, top / images, int(images), tuple(unreadable)
        )


@dataclass
class _Stepped:
    """A step that ran and was not looked at yet; lists are of its micro-batches that trained.

    Attributes:
        marks: at begin and end of the optimizer; it begins where the last micro-batch ends.
        micro_batches: marks of each, at its begin and where its phases ended.
        answers: logits and labels.
    """

    marks: list[int] = field(default_factory=list)
    micro_batches: list[list[int]] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    answers: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    unreadable: tuple[str, ...] = ()


class Seen:
    """Turns the steps of an epoch into sums and times, several at once.

    Attributes:
        sums, times: of the steps so far.
        unreadable: names of images.
    """

    def __init__(self, trainer: Trainer, sums: Sums) -> None:
        self._trainer = trainer
        self._waiting: list[_Stepped] = []
        self.sums = sums
        self.times = StepTimes()
        self.unreadable: list[str] = []

    def add(self, stepped: _Stepped) -> None:
        """A step that has run."""
        self._waiting.append(stepped)

    def look(self, epoch: int, done: int) -> None:
        """Wait for the device and add up.

        Raises:
            TrainingStopped: a loss is no number.
        """
        clock = self._trainer._clock
        self._trainer._ranks.meet()
        clock.synchronize()
        for stepped in self._waiting:
            if stepped.micro_batches:
                each = [_lengths(clock.resolve(marks)) for marks in stepped.micro_batches]
                optimizer = _lengths(clock.resolve(stepped.marks))
                self.times.add((*map(sum, zip(*each, strict=True)), *optimizer))
            self._count(stepped)
        self.times.all_reduce += self._trainer._reduced.take()
        clock.release()
        first = done - len(self._waiting) + 1
        losses = [float(sum(map(float, stepped.losses))) for stepped in self._waiting]
        self._waiting.clear()
        broken = next((n for n, loss in enumerate(losses) if not math.isfinite(loss)), None)
        # Each process looks: all of them stop where one has to.
        anywhere = self._trainer._ranks.sums([0.0 if broken is None else 1.0])[0]
        if self._trainer._goes_on:
            return
        if broken is not None:
            raise TrainingStopped(
                f"the loss of step {first + broken} of epoch {epoch} is {losses[broken]}: the "
                f"training stops; {REMEDY}"
            )
        if anywhere:
            raise TrainingStopped(
                f"the loss of another process in epoch {epoch} is not a number: the training stops"
            )

    def _count(self, stepped: _Stepped) -> None:
        self.sums.unreadable += len(stepped.unreadable)
        self.unreadable += stepped.unreadable[: NAMED - len(self.unreadable)]
        for loss, (logits, labels) in zip(stepped.losses, stepped.answers, strict=True):
            count = len(labels)
            self.sums.loss += float(loss) * count
            self.sums.correct += _hits(logits, labels)[0]
            self.sums.images += count


def _lengths(positions: Sequence[int]) -> tuple[int, ...]:
    return tuple(after - before for before, after in pairwise(positions))


def _hits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """How many labels are the largest logit, and are among the five largest."""
    ranked = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    return float(hits[:, 0].sum()), float(hits.any(dim=1).sum())
