"""What an estimate of detectors is asked for. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from layerbench.records.bounds import Amount, Count, Name, Positive
from layerbench.records.options import MEASURING, WHAT_RUNS, option
from layerbench.records.recipes import (
    Boxes,
    Classes,
    DataOptions,
    MinSize,
    Side,
    StepBatch,
    TrainingPrecision,
    Workers,
)
from layerbench.records.workload import RandomSeed

SAMPLES = 50_000


# So small that the weights stay as they are: with random ones and without batch norms (SSD300) the
# usual rate drives the losses out of all numbers within a few steps, and no rate changes the time.
STILL = 1e-9


@dataclass(frozen=True)
class Learning:
    """How a detector learns: SGD, as in torchvision's reference training.

    Attributes:
        lr, momentum, weight_decay: of SGD.
        precision: of the forward by autocast; else of weights, gradients and optimizer, too.
        checkpoint_activations: as in `layerbench.records.workload.StepOptions`.
    """

    lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 0.0005
    precision: TrainingPrecision = "fp32"
    checkpoint_activations: tuple[str, ...] | None = None


class EstimateOptions(DataOptions):
    """What is asked about each detector.

    Where a step takes longer than `SLOW_S`, one step warms up and two are measured.

    Attributes:
        samples: ``None`` for as many as the data set has.
        min_size: ``None`` for a detector's own, which those that take images of one size keep.
        seconds: inference is measured about half as long.
        content: whether inference is measured with several amounts found.
    """

    batch: StepBatch = 8
    epochs: Annotated[Positive, option("Epochs of the training.", panel=WHAT_RUNS)] = 3
    samples: Annotated[
        Positive | None,
        option(
            "Number of images in an epoch; a data set that is read has its own.",
            panel=WHAT_RUNS,
            default_text="50000 synthetic ones",
        ),
    ] = SAMPLES
    size: Annotated[
        tuple[Side, Side],
        option(
            "Height and width of the synthetic images; detectors resize them.",
            panel=WHAT_RUNS,
            metavar="N|HxW",
            default_text="224",
        ),
    ] = (224, 224)
    min_size: MinSize = None
    data: Annotated[
        Name,
        option(
            "pets (Oxford-IIIT Pet), or synthetic: generated JPEG images with several boxes each.",
            panel=WHAT_RUNS,
        ),
    ] = "synthetic"
    boxes: Boxes = "trimap"
    labels: Classes = "breed"
    learning: Learning = Learning(lr=STILL)
    workers: Workers = 0
    prefetch_factor: Positive | None = None
    warmup: Annotated[
        Count,
        option("Warm-up training steps; one if a step takes over 20 s.", panel=MEASURING),
    ] = 2
    steps: Annotated[
        int,
        option(
            "Training steps measured, at least; two if a step takes over 20 s.",
            panel=MEASURING,
            ge=2,
        ),
    ] = 5
    seconds: Annotated[
        Amount,
        option(
            "Seconds of training for each detector, at least; inference takes half as long.",
            panel=MEASURING,
        ),
    ] = 10.0
    content: Annotated[
        bool,
        option(
            "Measure how the latency depends on proposals and detections.",
            "--content/--no-content",
            panel=MEASURING,
        ),
    ] = True
    memory: Annotated[
        bool,
        option("Trace the tensors of a training step.", "--memory/--no-memory", panel=MEASURING),
    ] = True
    seed: RandomSeed = 0
