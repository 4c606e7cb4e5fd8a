"""A training of a detector, taken apart."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    Amount,
    Count,
    Figure,
    Name,
    Positive,
    SignedTime,
    Text,
    Time,
    is_none,
)
from layerbench.records.detection_estimate import Found, PartRow
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.rows import Phases
from layerbench.records.timing import Summary
from layerbench.records.training_step import PhaseRow
from layerbench.records.workload import Frozen

BottleneckKind = Literal["data", "copy", "launch", "compute"]


BOTTLENECKS: tuple[BottleneckKind, ...] = get_args(BottleneckKind)


class DetectionEpoch(Frozen):
    """One epoch.

    Attributes:
        losses: mean of each of the detector's losses; ``loss`` is their sum.
        train_s: wall time; ``phases_s``: by phase, all steps together.
        unreadable: images left out.
        allocated, reserved: the allocator's peak; ``None`` where it does not count.
        resident: the process's resident set at its largest so far.
    """

    epoch: Count
    steps: Count
    images: Count
    loss: Figure
    losses: dict[Name, Figure]
    train_s: Time
    images_per_s: Figure
    phases_s: dict[Name, Time]
    unreadable: Count = 0
    allocated: Count | None = None
    reserved: Count | None = None
    resident: Count | None = None


class OperatorRow(Frozen):
    """An operator in one part of the detector: means for a profiled step.

    Attributes:
        part: of the detector; ``""`` for what runs outside it.
        phase: of the step; ``recomputation`` for what a forward runs again within the backward.
        name: as PyTorch calls it.
        calls: a step.
        host_s: time on the CPU, without the operators that it calls.
        device_s: time of its kernels; ``None`` on the CPU.
    """

    part: Name
    phase: Name
    name: Name
    calls: Amount
    host_s: SignedTime
    device_s: SignedTime | None = None


class UsageSample(Frozen):
    """One look at the machine.

    Attributes:
        at_s: since the first step.
        process_cpu: the process and those it started, 1 being one core.
        system_cpu: of all cores, 1 being all of them.
        resident: bytes of the process's resident set.
        device: how busy the accelerator was recently, 0 to 1; ``None`` where it is not told.
        allocated, reserved: bytes that the allocator had handed out, and had taken from the
            device; ``None`` where it does not count.
    """

    at_s: SignedTime
    process_cpu: Figure
    system_cpu: Figure
    resident: Count
    device: Figure | None = None
    allocated: Count | None = None
    # Left out of the JSON where it is None, as in the records from before it was looked at.
    reserved: Count | None = Field(default=None, exclude_if=is_none)


class Usage(Frozen):
    """How busy the machine was.

    Attributes:
        interval_s: between samples.
        cores: that the process may run on.
        samples: at most some hundred, evenly taken.
        no_device: why nothing is said about an accelerator.
    """

    interval_s: Time
    cores: Positive
    samples: tuple[UsageSample, ...]
    no_device: Text = ""


class Bottleneck(Frozen):
    """What a step waits for most.

    Attributes:
        kind: ``data``: images are not there yet; ``copy``: they are on their way to the device;
            ``launch``: Python and PyTorch do not find work fast enough; ``compute``: the work
            itself.
        shares: of the step, by kind; they add up to 1.
        how: where the division between launching and computing comes from.
        advice: one sentence each.
    """

    kind: BottleneckKind
    shares: dict[BottleneckKind, Figure]
    how: Text
    advice: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Bottleneck:
        if self.kind not in self.shares:
            raise ValueError(f"the shares lack that of the bottleneck, {self.kind}")
        return self


class TunePoint(Frozen):
    """Steps with one setting of the loader.

    Attributes:
        images_per_s: while they ran; ``waiting``: the share of the time that went into waiting.
    """

    workers: Count
    prefetch_factor: Count
    step: Summary
    images_per_s: Figure
    waiting: Figure


class Tuning(Frozen):
    """Settings of the loader tried, and the one to take: the smallest that is good enough.

    Attributes:
        workers, prefetch_factor: to take.
        within: what share of the time it may wait, or how much less than the best throughput it
            may have.
    """

    points: tuple[TunePoint, ...]
    workers: Count
    prefetch_factor: Count
    within: Figure


class DetectionRun(Record):
    """A detector's training, taken apart.

    Attributes:
        recipe: what was trained, and how.
        images: to train on; ``classes``: names, the background first.
        step, phases, parts, parts_ratio, outside_s: of the last epoch's steps that count; as in
            `DetectorEstimate`.
        recomputation: of the backward phase, what forwards that ran again took.
        measured: how many steps these are.
        boxes, trained: means for an image.
        operators: of the profiled steps, the longest of each part and phase first.
        profiled: how many these were; ``profiled_s``: the mean of such a step, slower for being
            watched.
        unreadable: names of images that could not be read, each with the reason.
    """

    record: Literal["detection run"] = "detection run"
    recipe: DetectionRecipe
    environment: Environment
    model_type: Name
    parameters: Count
    images: Count
    classes: tuple[Name, ...]
    epochs: tuple[DetectionEpoch, ...]
    measured: Count
    step: Summary | None = None
    phases: Phases[PhaseRow] = ()
    parts: tuple[PartRow, ...] = ()
    parts_ratio: Figure | None = None
    outside_s: SignedTime = 0.0
    recomputation: Summary | None = Field(default=None, exclude_if=is_none)
    boxes: Amount | None = None
    trained: Found = Found()
    operators: tuple[OperatorRow, ...] = ()
    profiled: Count = 0
    profiled_s: Time | None = None
    usage: Usage | None = None
    bottleneck: Bottleneck | None = None
    tuning: Tuning | None = None
    unreadable: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
