"""What was measured or predicted: the numbers behind every answer. Loads no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerbench import units
from layerbench.records.card import Card
from layerbench.records.environment import Environment
from layerbench.records.workload import Frozen

# From this on between the bounds of a time, it is not kept as an answer.
WIDEST = 10.0
TIMES = ("forward", "backward", "batch", "one_image")

Method = Literal["measured", "replayed", "analytic"]
Stage = Literal["before", "forward", "backward", "optimizer", "inference"]


class Bounded(Frozen):
    """A figure, and the bounds that it is expected to lie between."""

    value: float
    low: float | None = None
    high: float | None = None


class Figure(Bounded):
    """A figure, how it came about, and its 95 % bounds.

    A peak of one run has no bounds: how far another run's would be is not known.
    """

    method: Method = "measured"


class PredictedFigure(Bounded):
    """A figure for a card that is not here; of times the bounds are those of 90 %."""

    # No method of `Figure`: results are stored under names that its form is a part of.
    method: Literal["predicted"] = "predicted"


class UsageSample(Frozen):
    """One look at the hardware.

    Attributes:
        stage: what had just been done; with looks at fixed intervals, ``None``.
        at_s: since the first.
        cpu: share of all cores in use since the look before, 0 to 1.
        ram: bytes of the process's resident set.
        gpu: share of time in which the GPU worked recently, in the last sixth of a second to one
            second as NVML tells it, 0 to 1; ``None`` where it is not told.
        vram: bytes that the allocator had reserved just then; ``None`` without a GPU.
    """

    stage: Stage | None
    at_s: float
    cpu: float
    ram: int
    gpu: float | None = None
    vram: int | None = None


class MeasurementResult(Frozen):
    """One measurement.

    Attributes:
        parameters: of the model as built.
        steps: measured, besides the warm-up; of inference, forwards.
        forward, backward, optimizer: seconds of a training step; ``None`` for inference.
        one_image, batch: seconds of forwards that infer; ``None`` for training.
        ram_before, vram_before: bytes, before the first step, with the model loaded.
        ram_peak, cpu_peak: of the looks.
        gpu_memory_peak: bytes: the allocator's on a GPU, else predicted for one.
        gpu_peak: of the looks; ``None`` without a GPU that tells.
        looks: all of them.
        content: of a detector, proposals and detections for an image.
        began_at, ended_at: of holding the device, seconds since 1970.
        unsteady: why this is no answer to the next one who asks; empty where it is one.
    """

    parameters: int
    steps: int
    forward: Figure | None = None
    backward: Figure | None = None
    optimizer: Figure | None = None
    one_image: Figure | None = None
    batch: Figure | None = None
    ram_before: int
    vram_before: int | None = None
    ram_peak: int
    cpu_peak: float
    gpu_memory_peak: Figure | None = None
    gpu_peak: float | None = None
    looks: tuple[UsageSample, ...] = ()
    content: dict[str, float] = Field(default_factory=dict)
    began_at: float
    ended_at: float
    environment: Environment
    notes: tuple[str, ...] = ()
    unsteady: str = ""


class CardSurroundings(Frozen):
    """What a prediction was made of: the card's data sheet, and versions."""

    card: Card
    torch: str
    layerbench: str


class CardPrediction(Frozen):
    """What is predicted for a card, without it. The constants are what nothing is predicted of.

    Attributes:
        parameters: of the model.
        forward, backward: seconds of a training step; ``None`` for inference.
        one_image, batch: seconds of forwards that infer; ``None`` for training.
        gpu_memory_peak: bytes that PyTorch's allocator reserves.
        notes: how such predictions were checked, whether it fits, and what else there is to know.
    """

    what: ClassVar[str] = "prediction"
    ram_before: ClassVar[None] = None
    vram_before: ClassVar[None] = None
    ram_peak: ClassVar[None] = None
    cpu_peak: ClassVar[None] = None
    gpu_peak: ClassVar[None] = None
    steps: ClassVar[int] = 0
    content: ClassVar[dict[str, float]] = {}
    unsteady: ClassVar[str] = ""

    parameters: int
    forward: PredictedFigure | None = None
    backward: PredictedFigure | None = None
    one_image: PredictedFigure | None = None
    batch: PredictedFigure | None = None
    gpu_memory_peak: PredictedFigure
    environment: CardSurroundings
    notes: tuple[str, ...] = ()


def unsteadiness(result: MeasurementResult) -> str:
    """Why figures are returned once and not stored; empty if they may be stored.

    A time whose 95 % interval spans more than tenfold says next to nothing: something else used the
    machine. Kept, it would be everybody's answer for good.
    """
    for name in TIMES:
        time: Figure | None = getattr(result, name)
        if time is None or time.low is None or time.high is None:
            continue
        if time.high > WIDEST * time.low:
            low, high = (units.seconds(bound) for bound in (time.low, time.high))
            return (
                f"the time of {name.replace('_', ' ')} is uncertain, {low} to {high}: the machine "
                "was busy; close other programs and ask again, it will be measured anew"
            )
    return result.environment.machine.too_busy
