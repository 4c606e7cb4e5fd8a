"""What tests of trainings share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

READER = "tests/models.py:digit_reader"


QUICK = {"data": "digits", "size": (8, 8), "threads": 1, "device": "cpu", "points": False}


WRITTEN = {
    "recipe.json",
    "train.log",
    "stats.log",
    "metrics.csv",
    "run.json",
    "checkpoint.pth",
    "model.pth",
    "model.safetensors",
    "loss.png",
    "accuracy.png",
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pth", weights_only=True)["states"]["model"]


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
