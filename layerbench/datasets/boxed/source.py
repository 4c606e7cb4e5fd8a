"""What a data set with boxes offers to the training of a detector. Importing this loads no torch.

Images keep their own sizes: detectors resize them, and their boxes, by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from layerbench.datasets.source import ImagesOf, SourceOf, SplitsOf

# The name of label 0, which no object has.
BACKGROUND = "background"

# The objects of one image, as torchvision's detectors take them:
#   boxes   float32 [K, 4], x1, y1, x2, y2 in pixels from the left upper corner, x2 > x1, y2 > y1
#   labels  int64 [K], from 1; 0 is the background
#   masks   uint8 [K, H, W], 1 on the object; only if `BoxedDatasetOptions.masks`
# K is 0 for an image without an object: an example of background alone.
Target = dict[str, Any]


@dataclass(frozen=True)
class BoxedDatasetOptions:
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


# Images are float32 ``[3, H, W]`` in 0..1; those to train on are mirrored half of the time. The
# first of the classes is `BACKGROUND`.
BoxedImages = ImagesOf[Target]
BoxedSplits = SplitsOf[Target]
BoxedSource = SourceOf[BoxedDatasetOptions, Target]
