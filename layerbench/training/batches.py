"""Batches of a data set: their order, their augmentation, and images that cannot be read."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from PIL import EpsImagePlugin, Image
from torch.utils.data import DataLoader, Dataset, Sampler

from layerbench.errors import DataError, LayerbenchError
from layerbench.records.defaults import MOST_PIXELS
from layerbench.records.recipes import Unreadable
from layerbench.training.seeds import mixed

Thing = TypeVar("Thing")

# An epoch and an image's number.
Key = tuple[int, int]

# Streams of random numbers, so that no two draw the same.
ORDER, AUGMENTATION, STEP = 1, 2, 3

# What PIL raises for images of more pixels than it may read.
TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
# What PIL and torchvision raise for files that are cut short, or no images, or far too large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, *TOO_LARGE)


@dataclass(frozen=True)
class Batch:
    """Images that came together.

    Attributes:
        images: ``[N, C, H, W]``, float32 as loaded; ``None`` where none could be read.
        labels: int64 ``[N]``.
        unreadable: names of those that could not be read, each with the reason.
    """

    images: torch.Tensor | None
    labels: torch.Tensor
    unreadable: tuple[str, ...] = ()

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU can copy from by itself."""
        images = None if self.images is None else self.images.pin_memory()
        return Batch(images, self.labels.pin_memory(), self.unreadable)

    def to(
        self, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> Batch:
        """The same on a device, the images in this format."""
        if self.images is None:
            return self
        images = self.images.to(device, dtype, non_blocking=True, memory_format=memory_format)
        return Batch(images, self.labels.to(device, non_blocking=True), self.unreadable)


class Numbered(Protocol):
    """Images with their targets, by number."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """The image and its target."""


class Samples(Dataset[tuple[Any, Any] | str]):
    """Images by epoch and number, each augmented from a seed of its own.

    An image that cannot be read gives a text in its place: which, and why.

    Args:
        images: of the data set.
        file: names an image by its number.
        seed: of the run.
        most_pixels: an image of more is not read.
    """

    def __init__(
        self,
        images: Numbered,
        file: Callable[[int], str],
        seed: int,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self._images = images
        self._file = file
        self._seed = seed
        self._most_pixels = most_pixels

    def __getitem__(self, key: Key) -> tuple[Any, Any] | str:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mixed(self._seed, AUGMENTATION, epoch, index))
            try:
                with _pixels_limited(self._most_pixels):
                    return self._images[index]
            except TOO_LARGE as error:
                return f"{self._file(index)} ({_pixels(error, self._most_pixels)})"
            except Exception as error:
                if not isinstance(error, UNREADABLE) and not _of_pil(error):
                    raise
                return f"{self._file(index)} ({type(error).__name__}: {_line(error)})"


@contextmanager
def _pixels_limited(most: int) -> Iterator[None]:
    """PIL reads no image of more pixels (it looks before it decodes), and starts no program."""
    before, program = Image.MAX_IMAGE_PIXELS, EpsImagePlugin.gs_binary
    # What an image is, its content says, whatever its name: PostScript would be run by Ghostscript.
    Image.MAX_IMAGE_PIXELS, EpsImagePlugin.gs_binary = most, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, EpsImagePlugin.gs_binary = before, program


def _of_pil(error: Exception) -> bool:
    """Whether it was raised while PIL read a file: decoders fail with errors of every kind."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame, _ in frames)


def _pixels(error: BaseException, most: int) -> str:
    match = re.search(r"(\d+) pixels", str(error))
    size = "too many" if match is None else f"{int(match[1]):,}"
    return f"{size} pixels, more than {most:,}: --most_pixels lets larger images be read"


class EpochBatches(Sampler[list[Key]]):
    """The batches of one process in one epoch; they can begin in the middle.

    The order of the images is drawn anew for each epoch. Each step takes ``ranks * batch`` images
    in that order, and each process its own stretch of them: all of them together train as one
    process with the whole batch would. What does not fill a step is left out.

    Args:
        count: images of the set.
        batch: images a process and step.
        seed: of the run.
        rank, ranks: this process, and how many there are.

    Raises:
        DataError: there are fewer images than one step takes.
    """

    def __init__(self, count: int, batch: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        if count < batch * ranks:
            each = f" in each of {ranks} processes" if ranks > 1 else ""
            raise DataError(
                f"the set has {count} images to train on, fewer than one batch of {batch}{each}: "
                "take a smaller --batch_size"
            )
        self._count, self._batch, self._seed = count, batch, seed
        self._rank, self._ranks = rank, ranks
        self._epoch, self._start = 1, 0
        self._most: int | None = None

    def set(self, epoch: int, start: int = 0, most: int | None = None) -> None:
        """What the next iteration gives: an epoch, from a step on, up to so many steps of it."""
        self._epoch, self._start, self._most = epoch, start, most

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return self._count // (self._batch * self._ranks)

    def __len__(self) -> int:
        return max(0, min(self.steps, self._most or self.steps) - self._start)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(mixed(self._seed, ORDER, self._epoch))
        order = torch.randperm(self._count, generator=generator)
        whole = self._batch * self._ranks
        for step in range(self._start, self._start + len(self)):
            first = step * whole + self._rank * self._batch
            yield [(self._epoch, int(index)) for index in order[first : first + self._batch]]


class EveryImage(Sampler[list[Key]]):
    """Batches of one process over all images once, in order, to validate on.

    Args:
        count: images of the set.
        batch: images a batch.
        rank, ranks: this process, and how many there are; each takes every so many.
        most: batches at most.
    """

    def __init__(
        self, count: int, batch: int, rank: int = 0, ranks: int = 1, most: int | None = None
    ) -> None:
        mine = list(range(rank, count, ranks))
        self._batches = [
            [(0, index) for index in mine[first : first + batch]]
            for first in range(0, len(mine), batch)
        ][:most]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self._batches)


def collate(items: Sequence[tuple[torch.Tensor, int] | str]) -> Batch:
    """Put images together that could be read, and the names of the others."""
    read = [item for item in items if not isinstance(item, str)]
    failed = tuple(item for item in items if isinstance(item, str))
    labels = torch.tensor([label for _, label in read], dtype=torch.int64)
    if not read:
        return Batch(None, labels, failed)
    return Batch(torch.stack([image for image, _ in read]), labels, failed)


def loader(
    samples: Dataset[Any],
    batches: Sampler[list[Key]],
    *,
    workers: int,
    pinned: bool,
    collate: Callable[[Any], Thing],
    prefetch_factor: int | None = None,
) -> DataLoader[Thing]:
    """A loader of what ``collate`` makes of samples; its processes stay from epoch to epoch.

    Args:
        samples: by epoch and number.
        batches: their keys.
        workers: processes that load; 0 for this one.
        pinned: in memory that a GPU can copy from by itself.
        collate: puts samples together.
        prefetch_factor: batches that each process has ready; ``None`` for PyTorch's choice.
    """
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        prefetch_factor=prefetch_factor if workers else None,
    )


def check_readable(unreadable: Sequence[str], policy: Unreadable) -> None:
    """Refuse images that cannot be read, where that is fatal.

    Args:
        unreadable: names, each with the reason.
        policy: what such an image does: it is ``fatal``, or left out (``skip``).

    Raises:
        DataError: the first of them.
    """
    if unreadable and policy == "fatal":
        raise DataError(
            f"cannot read {unreadable[0]}; --unreadable skip leaves such images out and counts them"
        )


def next_batch(iterator: Iterator[Thing]) -> Thing:
    """The next batch of a loader.

    Raises:
        DataError: a process that loads images died.
    """
    try:
        return next(iterator)
    except LayerbenchError:
        raise
    except RuntimeError as error:
        text = str(error)
        if "exited unexpectedly" not in text and "is killed by signal" not in text:
            raise
        raise DataError(
            f"a process that loads images ended: {_line(error)}; with --workers 0 images are "
            "loaded in the training process"
        ) from error


def _line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0]) if lines else "no reason given"
