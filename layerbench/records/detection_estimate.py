"""Detectors: what training and inference with them will take, and a training taken apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    Amount,
    Count,
    Figure,
    Name,
    Positive,
    Seed,
    SignedTime,
    Text,
    is_none,
)
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.recipes import Side, TrainingPrecision
from layerbench.records.rows import Phases
from layerbench.records.timing import Summary
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import PhaseRow
from layerbench.records.workload import Frozen


class PartRow(Frozen):
    """One part of a detector (backbone, RPN, heads, ...), without the parts that run inside it.

    Attributes:
        name: what it is called.
        forward, backward: in a training step.
        recomputation: of its forward running again within the backward; no part of ``backward``.
        inference: in a forward that detects.
        kept: bytes that its forward allocated and that were alive at its end, in training.
    """

    name: Name
    forward: Summary | None = None
    backward: Summary | None = None
    recomputation: Summary | None = Field(default=None, exclude_if=is_none)
    inference: Summary | None = None
    kept: Count | None = None


class Found(Frozen):
    """What a detector looked at and found, images taken together: means for one image.

    Attributes:
        proposals: regions that the heads looked at; of a detector without a proposal network, the
            candidate boxes that went into non-maximum suppression.
        detections: boxes in its output.
    """

    proposals: Amount | None = None
    detections: Amount | None = None


# --- before: an estimate -------------------------------------------------------------------


class DetectorMemory(Frozen):
    """Bytes of tensors in a training step, from the second one on.

    Attributes:
        parameters, buffers, gradients, optimizer: their tensors.
        activations: kept from the forward for the backward, with the outputs, when the forward
            ends.
        peak: the most alive at once.
    """

    parameters: Count
    buffers: Count
    gradients: Count
    optimizer: Count
    activations: Count
    peak: Count


class ContentPoint(Frozen):
    """One forward's latency where a certain amount was found.

    Attributes:
        found: for an image.
        latency: of a forward with one image.
    """

    found: Found
    latency: Summary


class ContentFit(Frozen):
    """Latency of one image's forward, linear in proposals and detections, by least squares.

    Attributes:
        base_s: with nothing found.
        per_proposal_s, per_detection_s: for each; ``None`` where it was not varied.
        worst: the largest relative error at the points that it was made of.
    """

    base_s: SignedTime
    per_proposal_s: SignedTime | None
    per_detection_s: SignedTime | None
    worst: Figure

    def latency_s(self, found: Found) -> float:
        """Seconds of a forward in which so much is found."""
        return (
            self.base_s
            + (self.per_proposal_s or 0.0) * (found.proposals or 0.0)
            + (self.per_detection_s or 0.0) * (found.detections or 0.0)
        )


class DetectorEstimate(Frozen):
    """What one detector takes.

    Attributes:
        memory: of a training step's tensors; ``None`` where it could not be worked out.
        warmup: steps that ran before those that count; ``step.n`` were measured.
        step: a training step, with its ``phases`` and the detector's ``parts``.
        parts_ratio: the parts' forward and backward, and ``outside_s``, over these two phases.
        outside_s: of the backward, what belongs to no part: adding the losses, autograd's start.
        between_s, start_s, once_s: as in `layerbench.records.training_estimate.TrainingEstimate`.
        epoch, training: of the whole training; ``inference``: all its images once, in batches.
        boxes: of an image to train on, on average.
        trained: proposals in training; ``inferred``: what inference found.
        one_image, one_batch: latency of a forward that detects.
        points, fit: how the latency of one image depends on what is found.
    """

    model: Name
    model_type: Name
    parameters: Count
    memory: DetectorMemory | None = None
    warmup: Count
    step: Summary
    phases: Phases[PhaseRow]
    parts: tuple[PartRow, ...]
    parts_ratio: Figure
    outside_s: SignedTime
    between_s: SignedTime
    start_s: SignedTime
    once_s: SignedTime
    epoch: Seconds
    training: Seconds
    inference: Seconds
    boxes: Amount
    trained: Found
    inferred: Found
    one_image: Summary
    one_batch: Summary
    points: tuple[ContentPoint, ...] = ()
    fit: ContentFit | None = None
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> DetectorEstimate:
        if not {"forward", "backward"} <= {phase.name for phase in self.phases}:
            raise ValueError("the phases lack the forward or the backward")
        return self

    @property
    def forward_s(self) -> float:
        """Mean seconds of the forward in a training step."""
        return self._phase("forward")

    @property
    def backward_s(self) -> float:
        """Mean seconds of the backward."""
        return self._phase("backward")

    def _phase(self, name: str) -> float:
        return next(phase.time.mean for phase in self.phases if phase.name == name)


class DetectorFailure(Frozen):
    """A detector that could not be measured, and why."""

    model: Name
    why: Text


class DetectionEstimates(Record):
    """What detectors take, one beside the other.

    Attributes:
        batch, epochs, samples: of the training.
        size: height and width of the images handed over; each detector resizes them itself.
        min_size: the shorter side that they resize them to; ``None`` for each detector's own.
        data: what the images are.
        workers: further processes that load images.
        rows: detectors in the order asked for; ``failures``: those that could not be measured.
        assumptions: one sentence each.
    """

    record: Literal["detection estimates"] = "detection estimates"
    batch: Positive
    epochs: Positive
    samples: Positive
    size: tuple[Count, Count]
    min_size: Side | None = None
    data: Name
    workers: Count
    precision: TrainingPrecision = "fp32"
    seed: Seed = 0
    environment: Environment
    rows: tuple[DetectorEstimate, ...] = ()
    failures: tuple[DetectorFailure, ...] = ()
    assumptions: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
