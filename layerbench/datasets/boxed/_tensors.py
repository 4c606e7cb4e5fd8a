"""From decoded images and masks to the inputs of detectors. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from layerbench.datasets.boxed.source import Target

# Left, upper, right and lower edge in pixels: the pixel at the left upper corner is 0, 0, 1, 1.
Box = tuple[float, float, float, float]


def box_around(mask: NDArray[np.bool_]) -> Box:
    """The smallest box with all of a mask in it.

    Args:
        mask: ``[H, W]``, not all false.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def target(
    boxes: Sequence[Box], labels: Sequence[int], masks: NDArray[np.bool_] | None = None
) -> Target:
    """Objects as tensors.

    Args:
        boxes, labels: K of each.
        masks: ``[K, H, W]``, or ``None``.
    """
    objects: Target = {
        # The shape is [0, 4] where there is no object.
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    if masks is not None:
        objects["masks"] = torch.from_numpy(masks.astype(np.uint8))
    return objects


def example(image: Image.Image, objects: Target, *, augmented: bool) -> tuple[torch.Tensor, Target]:
    """What a data set gives for an image.

    Args:
        image: decoded, RGB.
        objects: of this image.
        augmented: mirrored half of the time, as torch's default generator has it.

    Returns:
        float32 ``[3, H, W]`` in 0..1, and the objects.
    """
    pixels = functional.pil_to_tensor(image)
    if augmented and torch.rand(()) < 0.5:
        pixels, objects = _mirrored(pixels, objects)
    return functional.to_dtype(pixels, torch.float32, scale=True), objects


def _mirrored(image: torch.Tensor, objects: Target) -> tuple[torch.Tensor, Target]:
    x1, y1, x2, y2 = objects["boxes"].unbind(1)
    width = image.shape[-1]
    mirrored = {**objects, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
    if "masks" in objects:
        mirrored["masks"] = objects["masks"].flip(-1)
    return image.flip(-1), mirrored
