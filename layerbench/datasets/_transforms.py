"""Transforms of images, by torchvision. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.transforms import v2

from layerbench.datasets.source import IMAGENET_MEAN, IMAGENET_STD, Transform

# Of the resized image, as ImageNet is evaluated: 256 for a crop of 224.
RESIZED = 256 / 224


def normalized(
    *first: v2.Transform,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """The transforms, then a float tensor normalized by its channels' mean and deviation."""
    transform: Transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RGB(),
            *first,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(mean), list(std)),
        ]
    )
    return transform


def random_crop(size: tuple[int, int]) -> Transform:
    """A random part of the image, resized, mirrored half of the time (Szegedy et al. 2015)."""
    return normalized(
        v2.RandomResizedCrop(size, antialias=True),
        v2.RandomHorizontalFlip(),
    )


def central_crop(size: tuple[int, int]) -> Transform:
    """The middle of the image, resized."""
    larger = [round(side * RESIZED) for side in size]
    return normalized(v2.Resize(larger, antialias=True), v2.CenterCrop(size))
