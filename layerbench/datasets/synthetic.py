"""Synthetic images from a seed, with a pattern for each class: a trial without any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbench.datasets.source import DatasetOptions, Numbered, Splits

if TYPE_CHECKING:
    import torch

CLASSES = 10
TRAINED, VALIDATED = 1024, 256
# How much of an image is its class's pattern; the rest is noise of its own.
PATTERN = 0.3


@dataclass(frozen=True)
class Synthetic:
    """Noise with a pattern by class, so that there is something to learn."""

    name: str = "synthetic"

    def open(self, options: DatasetOptions) -> Splits:
        """``options.samples`` images to train on (1,024 by default), and a quarter to validate."""
        trained = options.samples or TRAINED
        validated = max(1, trained * VALIDATED // TRAINED)
        train = SyntheticImages(trained, options.size, options.seed)
        val = SyntheticImages(validated, options.size, options.seed, first=trained)
        classes = [f"pattern {number}" for number in range(CLASSES)]
        return Splits(train, val, classes, (Numbered("train"), Numbered("validation")))


SOURCE = Synthetic()


class SyntheticImages:
    """Images generated at each access. The same number always gives the same image.

    Args:
        count: how many.
        size: height and width.
        seed: of everything.
        first: number of the first image, so that two sets share none.
    """

    def __init__(self, count: int, size: tuple[int, int], seed: int, first: int = 0) -> None:
        self._count = count
        self._size = size
        self._seed = seed
        self._first = first
        self._patterns: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        number = self._first + index
        label = number % CLASSES
        if label not in self._patterns:
            self._patterns[label] = self._noise(-1 - label)
        own = self._noise(number)
        return PATTERN * self._patterns[label] + (1 - PATTERN) * own, label

    def _noise(self, number: int) -> torch.Tensor:
        import torch

        # Far enough apart that neighbouring seeds have no image in common.
        seed = (self._seed * 1_000_000_007 + number + CLASSES + 1) % 2**63
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(3, *self._size, generator=generator)
