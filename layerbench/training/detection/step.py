"""Training steps of a detector, each taken apart into its phases and the detector's parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.precision import autocast
from layerbench.environment.run_context import model_errors
from layerbench.errors import TrainingStopped
from layerbench.instruments.checkpointed import checkpointing
from layerbench.instruments.detections import DetectionCounter
from layerbench.instruments.detector_parts import parts_of
from layerbench.instruments.step_timer import Step, StepTimer, TimedStep
from layerbench.records.detection_estimate import Found, PartRow
from layerbench.records.timing import Summary
from layerbench.records.training_step import STEP_PHASES
from layerbench.records.workload import FORMATS
from layerbench.training import step_statistics
from layerbench.training.detection.batches import BoxedBatch, NoMoreBatches
from layerbench.training.detection.options import Learning
from layerbench.training.learning import Learner, in_format
from layerbench.units import NANOSECOND

FORWARD, BACKWARD = STEP_PHASES.index("forward"), STEP_PHASES.index("backward")
REMEDY = "a smaller --lr or float32 may help"


@dataclass(frozen=True)
class Stepped:
    """A step that ran.

    Attributes:
        timed: its times.
        images, boxes: that it learned from.
        losses: by the detector's names for them.
        proposals: that its heads looked at, all images together; ``None`` without a proposal
            network.
    """

    timed: TimedStep
    images: int
    boxes: int
    losses: dict[str, float]
    proposals: int | None


class Stepper:
    """A detector that learns, step by step.

    Args:
        name: of the model, for messages.
        model: on the device, in the format of the precision.
        learning: how.
        device: where.

    Attributes:
        parts: names of the detector's parts, by row of `TimedStep.forward`.
        checkpoints: entered around a step; modules run under activation checkpointing then.

    Raises:
        UsageError: what is to be checkpointed is not there, or cannot be.
    """

    def __init__(self, name: str, model: nn.Module, learning: Learning, device: Device) -> None:
        self._name = name
        self.model = model.train()
        self._learning = learning
        self._dtype = getattr(torch, FORMATS[learning.precision])
        self._device = device
        sgd = partial(
            torch.optim.SGD,
            lr=learning.lr,
            momentum=learning.momentum,
            weight_decay=learning.weight_decay,
        )
        self._learner = Learner(name, model, device, learning.precision, sgd)
        parts = parts_of(model)
        self.parts = parts.names
        self.checkpoints = checkpointing(model, learning.checkpoint_activations)
        with self.checkpoints():  # what is timed is what runs
            self._timer = StepTimer(parts.timed, parts.owners, len(parts.names), device.clock())
        self._counter = DetectionCounter(model)

    def step(self, fetch: Callable[[], BoxedBatch]) -> Stepped:
        """One step on the batch that ``fetch`` gives.

        Raises:
            NoMoreBatches: ``fetch`` has none.
            TrainingStopped: a loss is no number; the weights did not move.
            ModelRunError: the detector does not take the batch.
            LayerbenchError: what ``fetch`` raises.
        """
        kept = Kept()
        with self.explained(), self.checkpoints(), self._counter.attached(training=True):
            timed = self._timer.instrumented(self.pieces(fetch, kept))
        return Stepped(
            timed,
            images=len(kept.batch.images),
            boxes=kept.batch.boxes,
            losses={name: float(loss) for name, loss in kept.losses.items()},
            proposals=self._counter.take_proposals(),
        )

    def pieces(self, fetch: Callable[[], BoxedBatch], kept: Kept) -> Step:
        """A step in pieces; ``kept`` is where its batch and losses will be."""

        def fetched() -> BoxedBatch:
            kept.batch = fetch()
            return kept.batch

        def forward(batch: BoxedBatch) -> Any:  # noqa: ANN401 - losses by name
            with autocast(self._learning.precision, self._device.torch_device.type):
                return self.model(batch.images, batch.targets)

        def loss(output: dict[str, torch.Tensor], _: BoxedBatch) -> torch.Tensor:
            kept.losses = {name: value.detach() for name, value in output.items()}
            # What its boxes make is float32 even where the weights have fewer bits.
            wide = torch.promote_types(self._dtype, torch.float32)
            total = torch.stack([value.to(wide) for value in output.values()]).sum()
            self._check_finite(kept)
            return total

        return Step(
            fetch=fetched,
            move=lambda batch: batch.to(self._device.torch_device, self._dtype),
            forward=forward,
            loss=loss,
            backward=self._learner.backward,
            update=self._learner.update,
        )

    def _check_finite(self, kept: Kept) -> None:
        broken = [name for name, loss in kept.losses.items() if not math.isfinite(float(loss))]
        if broken:
            raise TrainingStopped(
                f"{', '.join(broken)} of {self._name} is {float(kept.losses[broken[0]])}: the "
                f"training stops; {REMEDY}"
            )

    def explained(self) -> AbstractContextManager[None]:
        """Turn what the detector raises into one line that says what failed."""
        what = f"the training step{in_format(self._learning.precision)}"
        return explained(self._name, what, self._device)


@contextmanager
def explained(name: str, what: str, device: Device) -> Iterator[None]:
    """Turn what a detector raises into one line that says what failed.

    Raises:
        ModelRunError: the detector raised anything but that memory ran out.
    """
    with model_errors(device, f"{name}: {what} failed", NoMoreBatches):
        yield


@dataclass
class Kept:
    """What a step leaves besides its times."""

    batch: BoxedBatch = field(default_factory=lambda: BoxedBatch([], []))
    losses: dict[str, torch.Tensor] = field(default_factory=dict)


# --- adding up -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PartTimes:
    """The parts over several steps.

    Attributes:
        rows: in the order of the parts.
        ratio: their forward, backward and recomputation, and what is outside, over these two
            phases.
        outside_s: of the backward, the median that belongs to no part.
        recomputation: of all parts; ``None`` where no forward ran again.
    """

    rows: tuple[PartRow, ...]
    ratio: float
    outside_s: float
    recomputation: Summary | None

    def with_column(self, name: str, values: Mapping[str, object]) -> tuple[PartRow, ...]:
        """The rows with a further column, whose values are by part."""
        return tuple(row.model_copy(update={name: values.get(row.name)}) for row in self.rows)


def part_times(names: Sequence[str], steps: Sequence[TimedStep]) -> PartTimes:
    """Add steps up by part.

    Args:
        names: of the parts.
        steps: with their forward and backward by row; at least one.
    """
    forward = np.stack([step.forward.self_ns for step in steps if step.forward is not None])
    backward = np.stack([step.backward_ns for step in steps if step.backward_ns is not None])
    again = np.stack([step.again_ns for step in steps if step.again_ns is not None])
    outside = np.array([step.outside_ns for step in steps], dtype=np.int64)
    phases = np.array([step.phases_ns for step in steps], dtype=np.int64)
    both = phases[:, [FORWARD, BACKWARD]].sum()
    ratio = (forward.sum() + backward.sum() + again.sum() + outside.sum()) / both
    return PartTimes(
        tuple(
            PartRow(
                name=name,
                forward=_unless_idle(forward[:, row]),
                backward=_unless_idle(backward[:, row]),
                recomputation=_unless_idle(again[:, row]),
            )
            for row, name in enumerate(names)
        ),
        float(ratio),
        float(np.median(outside)) * NANOSECOND,
        _unless_idle(again.sum(axis=1)),
    )


def _unless_idle(nanoseconds: NDArray[np.int64]) -> Any:  # noqa: ANN401 - a Summary or None
    """A part that never ran, or has no backward, has no time, not one of 0."""
    return step_statistics.summary(nanoseconds) if nanoseconds.any() else None


def found_in(steps: Sequence[Stepped]) -> Found:
    """What the heads looked at in training, for an image."""
    images = sum(step.images for step in steps)
    counts = [step.proposals for step in steps if step.proposals is not None]
    return Found(proposals=sum(counts) / images if counts and images else None)


def boxes_in(steps: Sequence[Stepped]) -> float:
    """Boxes to learn from, for an image."""
    return sum(step.boxes for step in steps) / max(1, sum(step.images for step in steps))
