"""What an estimate of detectors is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from layerbench.records.detection_estimate import BoxesFrom, Labels
from layerbench.training.detection.step import Learning

SAMPLES = 50_000


# So small that the weights stay as they are: with random ones and without batch norms (SSD300) the
# usual rate drives the losses out of all numbers within a few steps, and no rate changes the time.
STILL = 1e-9


@dataclass(frozen=True)
class EstimateOptions:
    """What is asked about each detector.

    Attributes:
        batch, epochs, samples: of the training; ``samples`` of ``None`` are as many as the data
            set has.
        size: height and width of made-up images.
        min_size: the shorter side that detectors resize images to; ``None`` for their own, which
            those that take images of one size keep.
        data: a data set with boxes; ``data_dir``: where such lie; ``download``: fetch it.
        boxes, labels: what of it is learned, where it leaves a choice.
        learning: how the detector learns.
        workers, prefetch_factor: of the loader.
        warmup, steps: training steps that do not count, and the fewest that are measured; one and
            two where a step takes longer than `layerbench.training.estimate.SLOW_S`.
        seconds: that training is measured at least, and about half as long inference.
        content: whether inference is measured with several amounts found.
        memory: whether the tensors of a step are traced.
        seed: of weights, images and order.
    """

    batch: int = 8
    epochs: int = 3
    samples: int | None = SAMPLES
    size: tuple[int, int] = (224, 224)
    min_size: int | None = None
    data: str = "synthetic"
    data_dir: str | Path = "data"
    download: bool = False
    boxes: BoxesFrom = "trimap"
    labels: Labels = "breed"
    learning: Learning = field(default_factory=lambda: Learning(lr=STILL))
    workers: int = 0
    prefetch_factor: int | None = None
    warmup: int = 2
    steps: int = 5
    seconds: float = 10.0
    content: bool = True
    memory: bool = True
    seed: int = 0
