"""Images with coloured shapes, encoded and decoded. Loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from layerbench.datasets.boxed._palette import COLOURS, DISTINCT, SHAPES
from layerbench.datasets.boxed._tensors import Box, box_around, example, target
from layerbench.datasets.boxed.source import Target

MOST_SHAPES = 5
# Attempts to place shapes; a crowded image gets fewer than it should have.
TRIES = 30
# About that of cameras and published sets.
QUALITY = 90
# How far the noise takes a channel, of 255, either way.
NOISE = 12
# The background is drawn on so few pixels, then enlarged.
COARSE = (8, 6)


class SyntheticBoxedImages:
    """Images drawn from a seed; the same number always gives the same image.

    Args:
        count: how many; from the 65th on they are those from the first on again.
        size: height and width.
        seed: of everything.
        half: number of the half, so that two share no image.
        masks: whether objects have masks.
        augmented: mirrored half of the time.
    """

    def __init__(
        self,
        count: int,
        size: tuple[int, int],
        seed: int,
        half: int,
        *,
        masks: bool,
        augmented: bool,
    ) -> None:
        self._count = count
        self._size = size
        self._seed = seed
        self._half = half
        self._masks = masks
        self._augmented = augmented
        self._encoded: dict[int, _Encoded] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        encoded = self._kept(index % DISTINCT)
        masks = None
        if self._masks:
            places = np.arange(1, len(encoded.boxes) + 1)[:, None, None]
            masks = np.asarray(Image.open(BytesIO(encoded.png))) == places
        objects = target(encoded.boxes, encoded.labels, masks)
        image = Image.open(BytesIO(encoded.jpeg)).convert("RGB")
        return example(image, objects, augmented=self._augmented)

    def _kept(self, number: int) -> _Encoded:
        if number not in self._encoded:
            # numpy takes no negative seed.
            seed = (self._seed % 2**64, self._half, number)
            self._encoded[number] = _drawn(self._size, seed)
        return self._encoded[number]


@dataclass(frozen=True)
class _Encoded:
    """An image.

    Attributes:
        jpeg: the image.
        png: of each pixel which shape it belongs to, from 1; 0 for none.
        boxes, labels: of the shapes, in that order.
    """

    jpeg: bytes
    png: bytes
    boxes: tuple[Box, ...]
    labels: tuple[int, ...]


# Both halves: of many detectors each has data of its own, all of the same images.
@lru_cache(2 * DISTINCT)
def _drawn(size: tuple[int, int], seed: tuple[int, ...]) -> _Encoded:
    rng = np.random.default_rng(seed)
    pixels = _background(size, rng)
    belongs = np.zeros(size, np.uint8)
    boxes: list[Box] = []
    labels: list[int] = []
    wanted = rng.integers(2, MOST_SHAPES + 1)
    for _ in range(TRIES):
        if len(boxes) == wanted:
            break
        shape, colour = (int(rng.integers(len(kinds))) for kinds in (SHAPES, COLOURS))
        covered = _covered(size, SHAPES[shape], rng)
        if belongs[covered].any():
            continue  # a shape half hidden would have a box that nobody sees
        boxes.append(box_around(covered))
        labels.append(1 + colour * len(SHAPES) + shape)
        belongs[covered] = len(boxes)
        pixels[covered] = list(COLOURS.values())[colour]
    pixels += rng.integers(-NOISE, NOISE + 1, pixels.shape, dtype=np.int16)
    jpeg, png = BytesIO(), BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=QUALITY)
    Image.fromarray(belongs).save(png, "PNG")
    return _Encoded(jpeg.getvalue(), png.getvalue(), tuple(boxes), tuple(labels))


def _background(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int16]:
    """Smooth, and of no colour that a shape has, ``[H, W, 3]``."""
    coarse = rng.integers(90, 166, (*COARSE, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth).astype(np.int16)


def _covered(size: tuple[int, int], shape: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels of a shape, ``[H, W]``: from an eighth of the image to a half, each way."""
    sides = [int(rng.integers(max(1, whole // 8), max(1, whole // 2) + 1)) for whole in size]
    starts = [int(rng.integers(whole - side + 1)) for whole, side in zip(size, sides, strict=True)]
    # From -1 to 1 over the shape, at the middles of its pixels.
    down, across = (
        (np.arange(whole) + 0.5 - start) / side * 2 - 1
        for whole, start, side in zip(size, starts, sides, strict=True)
    )
    covered: NDArray[np.bool_]
    if shape == "ellipse":
        covered = down[:, None] ** 2 + across[None] ** 2 <= 1
    else:
        covered = (abs(down) < 1)[:, None] & (abs(across) < 1)[None]
    return covered
