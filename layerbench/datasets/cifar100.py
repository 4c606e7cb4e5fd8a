"""CIFAR-100: 60,000 images of 32x32 in 100 classes (Krizhevsky 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbench.datasets.source import DatasetOptions, Numbered, Splits, Transform
from layerbench.errors import DataError

FOLDER = "cifar-100-python"
# Per channel over the training images, as the set's users take them.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)
# What a crop of a 32x32 image may be moved by.
PADDING = 4


@dataclass(frozen=True)
class Cifar100:
    """CIFAR-100 in its Python form, ``<root>/cifar-100-python/``, through torchvision."""

    name: str = "cifar100"

    def open(self, options: DatasetOptions) -> Splits:
        """Both halves; the images are resized to the model's input."""
        train = self._half(options, True, _augmented(options.size))
        val = self._half(options, False, _plain(options.size))
        return Splits(train, val, train.classes, (Numbered("train"), Numbered("test")))

    def _half(self, options: DatasetOptions, train: bool, transform: Transform) -> Any:  # noqa: ANN401
        from torchvision.datasets import CIFAR100

        try:
            return CIFAR100(
                options.root, train=train, transform=transform, download=options.download
            )
        except (OSError, RuntimeError, KeyError, EOFError, ValueError) as error:
            raise DataError(_missing(options.root, options.download, error)) from error


SOURCE = Cifar100()


def _missing(root: Path, tried: bool, error: Exception) -> str:
    if tried:
        return f"CIFAR-100 could not be fetched into {root}: {error}"
    folder = root / FOLDER
    state = "is damaged or incomplete" if folder.exists() else "is missing"
    return (
        f"CIFAR-100 {state}: {folder} must hold the files meta, train and test of "
        "cifar-100-python.tar.gz; --download fetches them, and --data synthetic generates images"
    )


def _augmented(size: tuple[int, int]) -> Transform:
    from torchvision.transforms import v2

    from layerbench.datasets._transforms import normalized

    return normalized(
        v2.RandomCrop(32, padding=PADDING),
        v2.RandomHorizontalFlip(),
        v2.Resize(size, antialias=True),
        mean=MEAN,
        std=STD,
    )


def _plain(size: tuple[int, int]) -> Transform:
    from torchvision.transforms import v2

    from layerbench.datasets._transforms import normalized

    return normalized(v2.Resize(size, antialias=True), mean=MEAN, std=STD)
