"""What a data set offers to training. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# From what a set holds (a PIL image, a tensor) to what the model takes, float32 [C, H, W].
Transform = Callable[[Any], Any]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DatasetOptions:
    """A user's choices for a data set.

    Attributes:
        root: the folder of all data sets.
        size: height and width that the model takes.
        download: whether missing files may be fetched.
        seed: of synthetic images and random splits.
        samples: number of synthetic images.
    """

    root: Path
    size: tuple[int, int]
    download: bool = False
    seed: int = 0
    samples: int | None = None


class Images(Protocol):
    """Images with labels, by number."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Any, int]:
        """The image, transformed, and its label."""


@dataclass(frozen=True)
class Splits:
    """The two halves of a data set.

    Attributes:
        train, val: images with their transforms.
        classes: names, by label.
        files: of `train` and of `val`: a name for the image of a number, for messages.
    """

    train: Images
    val: Images
    classes: Sequence[str]
    files: tuple[Callable[[int], str], Callable[[int], str]]


class Source(Protocol):
    """One file of this folder holds one data set as ``SOURCE``; nothing else lists it."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    def open(self, options: DatasetOptions) -> Splits:
        """The set, ready to be read.

        Raises:
            DataError: it is missing, with the files to add, or damaged.
        """


@dataclass(frozen=True)
class FileNames:
    """The files of a half; an object, so that it can be sent to processes that load images."""

    files: Sequence[str | Path]

    def __call__(self, index: int) -> str:
        """The file of one image."""
        return str(self.files[index])


@dataclass(frozen=True)
class Numbered:
    """Names for images without a file of their own: ``train image 17``."""

    what: str

    def __call__(self, index: int) -> str:
        """The name of one."""
        return f"{self.what} image {index}"
