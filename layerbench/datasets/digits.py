"""Scikit-learn's digits: 1,797 images of 8x8 in 10 classes, shipped with that package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbench.datasets.source import Asked, Numbered, Splits
from layerbench.errors import UsageError

if TYPE_CHECKING:
    import torch

# Of the images, the last fifth by a seeded order is validated on.
VALIDATED = 0.2
BRIGHTEST = 16.0


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, small enough to try a whole training in a minute."""

    name: str = "digits"

    def open(self, asked: Asked) -> Splits:
        """Both halves, resized, as three equal channels."""
        import numpy as np
        import torch

        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UsageError(
                "the data set digits comes with scikit-learn, which is not installed: "
                "pip install scikit-learn"
            ) from None
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(asked.seed).permutation(len(labels))
        cut = len(labels) - round(VALIDATED * len(labels))
        pixels = torch.tensor(images[order], dtype=torch.float32).view(-1, 1, 8, 8) / BRIGHTEST
        targets = [int(label) for label in labels[order]]
        train = Tensors(pixels[:cut], targets[:cut], asked.size)
        val = Tensors(pixels[cut:], targets[cut:], asked.size)
        names = [str(digit) for digit in range(10)]
        return Splits(train, val, names, (Numbered("train"), Numbered("validation")))


SOURCE = Digits()


class Tensors:
    """Images in memory, resized when asked for.

    Args:
        images: in [0, 1], ``[N, 1 or 3, H, W]``.
        labels: N of them.
        size: height and width to give.
    """

    def __init__(self, images: torch.Tensor, labels: list[int], size: tuple[int, int]) -> None:
        self._images = images
        self._labels = labels
        self._size = size

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from torch.nn import functional

        image = self._images[index]
        if tuple(image.shape[-2:]) != self._size:
            image = functional.interpolate(
                image[None], self._size, mode="bilinear", align_corners=False
            )[0]
        return image.expand(3, *self._size) * 2 - 1, self._labels[index]
