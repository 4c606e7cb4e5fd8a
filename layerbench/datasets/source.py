"""What a data set offers to training. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

# From what a set holds (a PIL image, a tensor) to what the model takes, float32 [C, H, W].
Transform = Callable[[Any], Any]
Label_co = TypeVar("Label_co", covariant=True)
Options_contra = TypeVar("Options_contra", contravariant=True)

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


class ImagesOf(Protocol[Label_co]):
    """Images by number, each with its label: a class, or the objects in it."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Any, Label_co]:
        """The image, transformed, and its label.

        Raises:
            OSError, SyntaxError, ValueError, EOFError: this image, or a file of its label, cannot
                be read; the others can.
        """


@dataclass(frozen=True)
class SplitsOf(Generic[Label_co]):
    """The two halves of a data set.

    Attributes:
        train, val: images with their transforms.
        classes: names, by label.
        files: of `train` and of `val`: a name for the image of a number, for messages.
        notes: remarks on the halves, a sentence each.
    """

    train: ImagesOf[Label_co]
    val: ImagesOf[Label_co]
    classes: Sequence[str]
    files: tuple[Callable[[int], str], Callable[[int], str]]
    notes: tuple[str, ...] = ()


class SourceOf(Protocol[Options_contra, Label_co]):
    """One file of this folder holds one data set as ``SOURCE``; nothing else lists it."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    def open(self, options: Options_contra) -> SplitsOf[Label_co]:
        """The set, ready to be read.

        Raises:
            DataError: it is missing, with the files to add, or damaged.
            UsageError: it does not have the labels needed.
        """


# Of sets for classifiers; `layerbench.datasets.boxed` has those for detectors.
Images = ImagesOf[int]
Splits = SplitsOf[int]
Source = SourceOf[DatasetOptions, int]


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
