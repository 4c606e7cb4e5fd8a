"""Small data sets in the genuine formats."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR100

CIFAR_CLASSES = 100


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> Path:
    """CIFAR-100's pickled batches with made-up pixels, and their checksums where they are checked.

    Returns:
        the folder ``cifar-100-python``.
    """
    folder = root / CIFAR100.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("test", test)):
        fine = [number % CIFAR_CLASSES for number in range(count)]
        content = {
            "filenames": [f"image_{number}.png" for number in range(count)],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": fine,
            "coarse_labels": [label // 5 for label in fine],
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"thing {number:02d}" for number in range(CIFAR_CLASSES)]
    meta = {"fine_label_names": names, "coarse_label_names": names[:20]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))

    def checksum(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR100, "train_list", [["train", checksum("train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", checksum("test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": checksum("meta")})
    return folder


def write_image_folder(root: Path, classes: int = 3, train: int = 6, val: int = 2) -> Path:
    """``imagenet/{train,val}/<class>/*.JPEG``, each class of a colour of its own.

    Returns:
        the folder ``imagenet``.
    """
    rng = np.random.default_rng(0)
    top = root / "imagenet"
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = top / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 64, (40, 50, 3), dtype=np.uint8)
                pixels[..., label % 3] += 150
                Image.fromarray(pixels).save(folder / f"n{label:08d}_{number}.JPEG", quality=90)
    return top


def cut_short(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
