"""Latency and memory of models over input sizes and batch sizes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import Count, Figure, Name, Positive, Text, is_none
from layerbench.records.conditions import WarmUp
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.timing import Summary
from layerbench.records.workload import Checkpoint, Computed, Frozen, NumberFormats


class SweepPoint(Frozen):
    """One model at one input size and batch.

    Attributes:
        size: height and width.
        latency: one forward of the whole batch.
        flops: of the batch's forward; a multiply-add is 2. ``None`` where they cannot be counted.
        allocated, reserved: bytes at the peak, of PyTorch's allocator on a GPU. ``None``
            where they are not known.
        memory: whether they were measured on the device, or predicted for a GPU.
        warm_up: of an accelerator, before the forwards that count.
    """

    model: Name
    size: tuple[Count, Count]
    batch: Positive
    latency: Summary
    flops: Count | None = None
    allocated: Count | None = None
    reserved: Count | None = None
    memory: Literal["measured", "predicted"] = "measured"
    warm_up: WarmUp | None = Field(default=None, exclude_if=is_none)

    @property
    def per_image_s(self) -> float:
        """The median latency divided by the images of the batch."""
        return self.latency.median / self.batch


class SweepEnd(Frozen):
    """Where the climb over batch sizes ended early.

    Attributes:
        batch: the first that was not measured.
        fits: false where memory was the reason, else it would have taken too long.
        why: one sentence.
    """

    model: Name
    size: tuple[Count, Count]
    batch: Count
    fits: bool
    why: Text


class FinishedRun(Frozen):
    """A finished training, as a sweep sets it against FLOPs.

    Attributes:
        flops: of one image's forward.
        accuracy: the best of the validation.
    """

    model: Name
    data: Name
    size: tuple[Count, Count]
    flops: Count
    parameters: Count
    accuracy: Figure


class Sweep(Record):
    """Points in the order in which they were measured.

    Attributes:
        dtype, precision, channels_last: of all points; several formats where models have their own.
        checkpoint: the file whose weights were loaded onto the model, where there is one.
        ends: climbs that ended before the last batch size.
        runs: finished trainings that were found.
    """

    record: Literal["sweep"] = "sweep"
    dtype: NumberFormats = "float32"
    precision: Computed | None = Field(default=None, exclude_if=is_none)
    channels_last: bool = False
    checkpoint: Checkpoint | None = Field(default=None, exclude_if=is_none)
    environment: Environment
    points: tuple[SweepPoint, ...]
    ends: tuple[SweepEnd, ...] = ()
    runs: tuple[FinishedRun, ...] = ()
    notes: tuple[Text, ...] = ()
