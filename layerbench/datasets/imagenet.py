"""ImageNet-1K (Russakovsky et al. 2015), and any set with a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerbench.datasets.source import DatasetOptions, FileNames, Splits, Transform
from layerbench.errors import DataError
from layerbench.text import one_line

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


@dataclass(frozen=True)
class ImageNet:
    """``<root>/imagenet/{train,val}/<class>/*.JPEG``, or the archives of ILSVRC 2012.

    Attributes:
        folders: tried in this order below the root.
    """

    name: str = "imagenet"
    folders: tuple[str, ...] = ("imagenet", "ImageNet", "imagenet-1k", ".")

    def open(self, options: DatasetOptions) -> Splits:
        """Both halves: random parts of the images to train on, their middle to validate."""
        from layerbench.datasets._transforms import central_crop, random_crop

        root = self._root(options.root)
        train = _half(root, "train", random_crop(options.size))
        val = _half(root, "val", central_crop(options.size))
        if train.classes != val.classes:
            raise DataError(_differing(root, train.classes, val.classes))
        files = [FileNames([file for file, _ in half.samples]) for half in (train, val)]
        return Splits(train, val, train.classes, (files[0], files[1]))

    def _root(self, root: Path) -> Path:
        for folder in self.folders:
            place = root / folder
            if (place / "train").is_dir() or (place / DEVKIT).is_file():
                return place
        raise DataError(
            f"ImageNet is missing: put its images into {root}/imagenet/train/<class>/ and "
            f"{root}/imagenet/val/<class>/, or the archives {DEVKIT}, ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar into {root}/imagenet/ (from image-net.org, after "
            "registration: layerbench cannot fetch them)"
        )


SOURCE = ImageNet()


def _half(root: Path, split: str, transform: Transform) -> ImageFolder:
    from torchvision import datasets

    try:
        if (root / DEVKIT).is_file():
            # Unpacks the archives the first time.
            return datasets.ImageNet(root, split=split, transform=transform)
        return datasets.ImageFolder(root / split, transform=transform)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"cannot read {root / split}: {one_line(error)}") from error


def _differing(root: Path, train: list[str], val: list[str]) -> str:
    only = sorted(set(train) ^ set(val))
    return (
        f"the classes of {root}/train and {root}/val differ: {', '.join(only[:3])}"
        f"{' and more' if len(only) > 3 else ''} in one of them only"
    )
