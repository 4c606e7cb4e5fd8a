"""What a data set with boxes offers to the training of a detector. Importing this loads no torch.

Images keep their own sizes: detectors resize them, and their boxes, by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

# The name of label 0, which no object has.
BACKGROUND = "background"

# The objects of one image, as torchvision's detectors take them:
#   boxes   float32 [K, 4], x1, y1, x2, y2 in pixels from the left upper corner, x2 > x1, y2 > y1
#   labels  int64 [K], from 1; 0 is the background
#   masks   uint8 [K, H, W], 1 on the object; only if `DatasetOptions.masks`
# K is 0 for an image without an object: an example of background alone.
Target = dict[str, Any]


@dataclass(frozen=True)
class DatasetOptions:
    """A user's choices for a data set with boxes.

    Attributes:
        root: the folder of all data sets.
        boxes: source of the boxes, if a set has both: ``trimap`` (the outline of the whole object)
            or ``xml`` (marked by hand).
        classes: which classes are distinguished, if a set has both.
        masks: whether each object has a mask.
        download: whether missing files may be fetched.
        seed: of synthetic images.
        samples: number of synthetic images.
        size: height and width of synthetic images.
    """

    root: Path
    boxes: Literal["trimap", "xml"] = "trimap"
    classes: Literal["breed", "species"] = "breed"
    masks: bool = False
    download: bool = False
    seed: int = 0
    samples: int | None = None
    size: tuple[int, int] | None = None


class BoxedImages(Protocol):
    """Images with the objects in them, by number."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Any, Target]:
        """The image, float32 ``[3, H, W]`` in 0..1, and its objects.

        Raises:
            OSError, SyntaxError, ValueError, EOFError: this image, or what belongs to it, cannot
                be read; the others can.
        """


@dataclass(frozen=True)
class BoxedSplits:
    """The two halves of a data set with boxes.

    Attributes:
        train, val: images; those to train on are mirrored half of the time.
        classes: names, by label; the first is ``background``.
        files: of `train` and of `val`: a name for the image of a number, for messages.
        notes: remarks on the halves, a sentence each.
    """

    train: BoxedImages
    val: BoxedImages
    classes: Sequence[str]
    files: tuple[Callable[[int], str], Callable[[int], str]]
    notes: tuple[str, ...] = ()


class BoxedSource(Protocol):
    """One file of this folder holds one data set as ``SOURCE``; nothing else lists it."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    def open(self, options: DatasetOptions) -> BoxedSplits:
        """The set, ready to be read.

        Raises:
            DataError: it is missing, with the files to add, or damaged.
            UsageError: it does not have the boxes, classes or masks needed.
        """
