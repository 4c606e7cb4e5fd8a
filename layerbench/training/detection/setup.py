"""What a detector's training needs before it begins: device, data, optimizer, folder."""

from __future__ import annotations

from pathlib import Path

from layerbench.datasets import boxed
from layerbench.datasets.boxed import BoxedDatasetOptions, BoxedSplits
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.errors import DeviceUnavailable
from layerbench.records.recipes import DetectionRecipe
from layerbench.training.detection.config import RunOptions
from layerbench.training.detection.options import Learning


def device_of(name: str | None) -> Device:
    """The device of this name.

    Raises:
        DeviceUnavailable: it is not on this machine; the message has what a configuration says.
    """
    try:
        return devices.get(name)
    except DeviceUnavailable as error:
        raise DeviceUnavailable(
            f'{error}, and --device auto (in the configuration: device = "auto") takes the '
            "accelerator if there is one"
        ) from None


def open_data(recipe: DetectionRecipe, around: RunOptions, *, masks: bool = False) -> BoxedSplits:
    """The images and boxes that a recipe names, on this machine."""
    return boxed.get(recipe.data).open(
        BoxedDatasetOptions(
            root=Path(around.data_dir),
            boxes=recipe.boxes,
            classes=recipe.labels,
            masks=masks,
            download=around.download,
            seed=recipe.seed,
            samples=recipe.samples,
            size=recipe.size,
        )
    )


def learning_of(recipe: DetectionRecipe) -> Learning:
    """The optimizer's settings."""
    return Learning(recipe.lr, recipe.momentum, recipe.weight_decay, recipe.precision)
