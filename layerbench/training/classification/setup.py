"""What a training run needs before it begins: data, sizes, options that fit together."""

from __future__ import annotations

from pathlib import Path

from layerbench import datasets, zoo
from layerbench.datasets import DatasetOptions, Splits
from layerbench.errors import BadInput, UsageError
from layerbench.records.recipes import Recipe
from layerbench.records.workload import Workload
from layerbench.training.classification.options import RunOptions

IMAGE_BATCH = 4


def check(recipe: Recipe, checkpoint: str | Path | None = None) -> Workload:
    """What a step runs on; raises where the model or its weights make no sense.

    Args:
        recipe: what is trained.
        checkpoint: a file of weights that the model begins with.

    Raises:
        LayerbenchError: as `layerbench.zoo.resolve`.
    """
    height, width = recipe.size
    return zoo.resolve(
        recipe.model,
        f"3x{height}x{width}",
        batch=recipe.batch,
        precision=recipe.precision,
        memory_format="channels_last" if recipe.channels_last else "contiguous",
        mode="train",
        seed=recipe.seed,
        weights=recipe.weights,
        checkpoint=checkpoint,
    ).with_step(recipe)


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
            root=Path(where.data_dir),
            size=recipe.size,
            download=where.download,
            seed=recipe.seed,
            samples=recipe.samples,
        )
    )
