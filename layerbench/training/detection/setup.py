"""What a detector's training needs before it begins: device, data, optimizer, folder."""

from __future__ import annotations

from pathlib import Path

from layerbench.datasets import boxed
from layerbench.datasets.boxed import BoxedDatasetOptions, BoxedSplits
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.errors import DeviceUnavailable
from layerbench.records.recipes import DataOptions, DetectionRecipe
from layerbench.training.detection.options import EstimateOptions, Learning


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


def open_data(
    asked: DetectionRecipe | EstimateOptions, where: DataOptions, *, masks: bool = False
) -> BoxedSplits:
    """The images and boxes that a recipe or an estimate names, on this machine.

    Raises:
        DataError: they are not there, or damaged.
    """
    return boxed.get(asked.data).open(
        BoxedDatasetOptions(
            root=Path(where.data_dir),
            boxes=asked.boxes,
            classes=asked.labels,
            masks=masks,
            download=where.download,
            seed=asked.seed,
            samples=asked.samples,
            size=asked.size,
        )
    )


def learning_of(recipe: DetectionRecipe) -> Learning:
    """The optimizer's settings."""
    return Learning(
        recipe.lr,
        recipe.momentum,
        recipe.weight_decay,
        recipe.precision,
        recipe.checkpoint_activations,
    )
