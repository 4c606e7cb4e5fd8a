"""Scikit-learn's digits: 1,797 images of 8x8 in 10 classes, shipped with that package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerbench.datasets.source import DatasetOptions, Numbered, Splits
from layerbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# The last fifth of the images, in a seeded order, is for validation.
VALIDATED = 0.2
BRIGHTEST = 16.0
# In scikit-learn's folder: 64 pixels a line, and the digit.
FILE = Path("datasets", "data", "digits.csv.gz")


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, small enough to try a whole training in a minute."""

    name: str = "digits"

    def open(self, options: DatasetOptions) -> Splits:
        """Both halves, resized, as three equal channels."""
        import numpy as np
        import torch

        rows = _rows()
        images, labels = rows[:, :-1], rows[:, -1]
        order = np.random.default_rng(options.seed).permutation(len(labels))
        cut = len(labels) - round(VALIDATED * len(labels))
        pixels = torch.tensor(images[order], dtype=torch.float32).view(-1, 1, 8, 8) / BRIGHTEST
        targets = [int(label) for label in labels[order]]
        train = Tensors(pixels[:cut], targets[:cut], options.size)
        val = Tensors(pixels[cut:], targets[cut:], options.size)
        names = [str(digit) for digit in range(10)]
        return Splits(train, val, names, (Numbered("train"), Numbered("validation")))


SOURCE = Digits()


def _rows() -> NDArray[np.float64]:
    """Read past scikit-learn, which each process that trains would take a second to load.

    Raises:
        UsageError: it is not installed.
    """
    import numpy as np

    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UsageError(
            "the data set digits comes with scikit-learn, which is not installed: "
            "pip install scikit-learn"
        )
    path = Path(package.origin).parent / FILE
    if path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))


class Tensors:
    """Images in memory, resized at each access.

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
