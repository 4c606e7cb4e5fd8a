"""Batches for detectors: lists of images, each of its own size, with their boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from layerbench.datasets.boxed import BoxedImages, Target
from layerbench.introspection.nested import map_tensors
from layerbench.records.defaults import MOST_PIXELS
from layerbench.records.recipes import Unreadable
from layerbench.training.batches import EpochBatches, Samples, check_readable, loader, next_batch
from layerbench.training.detection import models
from layerbench.zoo.torchvision import keypoints_in

# Of the names of unreadable images, so many are kept.
NAMED = 20
MADE_UP_KEYPOINTS = "the data have no keypoints: points along each box's diagonal stand for them"


@dataclass(frozen=True)
class BoxedBatch:
    """Images that came together.

    Attributes:
        images: ``[3, H, W]`` each, float32 as loaded.
        targets: what is in them.
        unreadable: names of those that could not be read, each with the reason.
    """

    images: list[torch.Tensor]
    targets: list[Target]
    unreadable: tuple[str, ...] = ()

    def pin_memory(self) -> BoxedBatch:
        """The same in memory that a GPU can copy from by itself."""
        images, targets = map_tensors((self.images, self.targets), torch.Tensor.pin_memory)
        return BoxedBatch(images, targets, self.unreadable)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> BoxedBatch:
        """The same on a device, the images in this format.

        Boxes keep theirs: torchvision takes no bfloat16 ones, and float16 has no room for them.
        """
        moved: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor.to(  # noqa: E731
            device, non_blocking=True
        )
        images = [image.to(device, dtype, non_blocking=True) for image in self.images]
        return BoxedBatch(images, map_tensors(self.targets, moved), self.unreadable)

    @property
    def boxes(self) -> int:
        """The number of boxes in the targets."""
        return sum(len(target["boxes"]) for target in self.targets)


def collate(items: Sequence[tuple[torch.Tensor, Target] | str]) -> BoxedBatch:
    """Put images together that could be read, and the names of the others."""
    read = [item for item in items if not isinstance(item, str)]
    return BoxedBatch(
        [image for image, _ in read],
        [target for _, target in read],
        tuple(item for item in items if isinstance(item, str)),
    )


class ForModel:
    """Images with what a detector learns from: labels that it knows, keypoints if it wants them.

    Args:
        images: with their boxes.
        model: that will learn from them.
    """

    def __init__(self, images: BoxedImages, model: nn.Module) -> None:
        self._images = images
        self._classes = models.class_count(model)
        self._keypoints = models.wants_keypoints(model)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        image, target = self._images[index]
        if self._classes is not None and self._classes > 1:
            target = {**target, "labels": 1 + (target["labels"] - 1) % (self._classes - 1)}
        if self._keypoints:
            target = {**target, "keypoints": keypoints_in(target["boxes"])}
        return image, target


def batches(
    images: BoxedImages,
    file: Callable[[int], str],
    order: EpochBatches,
    *,
    seed: int,
    workers: int,
    prefetch_factor: int | None = None,
    pinned: bool = False,
    most_pixels: int = MOST_PIXELS,
) -> DataLoader[BoxedBatch]:
    """A loader of an epoch's batches.

    Args:
        images: what is loaded.
        file: names an image by its number.
        order: says which images come together.
        seed: of augmentation.
        workers, prefetch_factor, pinned: as for `layerbench.training.batches.loader`.
        most_pixels: an image of more is not read.
    """
    return loader(
        Samples(images, file, seed, most_pixels),
        order,
        workers=workers,
        prefetch_factor=prefetch_factor,
        pinned=pinned,
        collate=collate,
    )


class NoMoreBatches(Exception):
    """A loader has no further batch with an image in it.

    Not StopIteration, which a generator on its way turns into another error.
    """


class Readable:
    """The batches of a loader in which there is something to train on.

    Args:
        iterator: of a loader.
        policy: what an image does that cannot be read: it is ``fatal``, or left out (``skip``).

    Attributes:
        skipped: how many could not be read; ``names``: of the first of them.
    """

    def __init__(self, iterator: Iterator[BoxedBatch], policy: Unreadable) -> None:
        self._iterator = iterator
        self._policy = policy
        self.skipped = 0
        self.names: list[str] = []

    def next(self) -> BoxedBatch:
        """The next batch with an image in it.

        Raises:
            DataError: an image cannot be read and that is fatal.
            NoMoreBatches: there is no further one.
        """
        while True:
            try:
                batch = next_batch(self._iterator)
            except StopIteration:
                raise NoMoreBatches from None
            check_readable(batch.unreadable, self._policy)
            self.skipped += len(batch.unreadable)
            self.names += batch.unreadable[: NAMED - len(self.names)]
            if batch.images:
                return batch
