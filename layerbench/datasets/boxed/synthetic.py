"""Synthetic images from a seed, with coloured shapes to detect: a trial without any data."""

from __future__ import annotations

from dataclasses import dataclass

from layerbench.datasets.boxed._palette import COLOURS, DISTINCT, SHAPES
from layerbench.datasets.boxed.source import BACKGROUND, BoxedDatasetOptions, BoxedSplits
from layerbench.datasets.source import Numbered

TRAINED, VALIDATED = 256, 64
# Height and width; about what a photograph of a published set has.
SIZE = (375, 500)
# By label.
CLASSES = (BACKGROUND, *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES))


@dataclass(frozen=True)
class Synthetic:
    """Shapes on a noisy background, as JPEG: reading costs as much as decoding a photograph.

    An image is drawn and encoded when it is first read, by each process that reads it, and
    decoded at each reading. At most `DISTINCT` different images are made of each half; further
    numbers give them again.
    """

    name: str = "synthetic"

    def open(self, options: BoxedDatasetOptions) -> BoxedSplits:
        """``options.samples`` images to train on (256 by default), and a quarter to validate."""
        from layerbench.datasets.boxed._synthetic import SyntheticBoxedImages

        trained = options.samples or TRAINED
        validated = max(1, trained * VALIDATED // TRAINED)
        size = options.size or SIZE
        train = SyntheticBoxedImages(
            trained, size, options.seed, 0, masks=options.masks, augmented=True
        )
        val = SyntheticBoxedImages(
            validated, size, options.seed, 1, masks=options.masks, augmented=False
        )
        notes: tuple[str, ...] = ()
        if trained > DISTINCT:
            notes = (f"{DISTINCT} different images are made up, and come again by number",)
        return BoxedSplits(train, val, CLASSES, (Numbered("train"), Numbered("validation")), notes)


SOURCE = Synthetic()
