"""What a training run needs before it begins: data, sizes, options that fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerbench import datasets, zoo
from layerbench.datasets import DatasetOptions, Splits
from layerbench.errors import BadInput, UsageError
from layerbench.records.defaults import MOST_PIXELS
from layerbench.records.training_run import Recipe
from layerbench.records.workload import Workload

IMAGE_BATCH = 4


@dataclass(frozen=True)
class RunOptions:
    """Where a run happens, and what changes no weight.

    Attributes:
        device: its name; ``None`` takes the accelerator if there is one.
        data: the folder that data sets lie in.
        outputs: the folder that runs lie in.
        download: fetch a data set that is missing.
        workers: processes that load images.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        resume: go on with the last run of the same model and phase, or with the run in a folder.
        checkpoint_minutes: between checkpoints within an epoch; 0 for one after every step.
        points: measure the trained model's latency and memory at several batch sizes.
        most_pixels: an image of more is not read.
    """

    device: str | None = None
    data: Path = Path("data")
    outputs: Path = Path("outputs")
    download: bool = False
    workers: int = 0
    threads: int | None = None
    resume: bool | Path = False
    checkpoint_minutes: float = 10.0
    points: bool = True
    most_pixels: int = MOST_PIXELS


def check(recipe: Recipe) -> Workload:
    """What a step runs on; raises where the model or its weights make no sense.

    Raises:
        LayerbenchError: as `layerbench.zoo.resolve`.
    """
    height, width = recipe.size
    return zoo.resolve(
        recipe.model,
        f"3x{height}x{width}",
        batch=recipe.batch,
        dtype="float32",
        memory_format="channels_last" if recipe.channels_last else "contiguous",
        mode="train",
        seed=recipe.seed,
        weights=recipe.weights,
    )


def usual_size(model: str) -> tuple[int, int]:
    """Height and width that a model is meant for.

    Raises:
        UsageError: they are not known; the user has to say. Or there is no such model.
    """
    try:
        shape = zoo.resolve(model).shape
    except BadInput:
        shape = ()
    if len(shape) != IMAGE_BATCH:
        raise UsageError(f"{model}: the size of its images is not known: give --size")
    return shape[2], shape[3]


def open_data(recipe: Recipe, where: RunOptions) -> Splits:
    """The recipe's data set at the size that the model takes.

    Raises:
        DataError: it is not there, or damaged.
    """
    return datasets.get(recipe.data).open(
        DatasetOptions(
            root=where.data,
            size=recipe.size,
            download=where.download,
            seed=recipe.seed,
            samples=recipe.samples,
        )
    )
