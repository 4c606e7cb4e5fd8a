"""A small network that reads digits: ``examples/training/reader.py:reader``."""

from __future__ import annotations

from torch import nn


def reader() -> nn.Module:
    """For images of any size; 10 classes."""

    def stage(channels: int, wider: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, wider, 3, padding=1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(
        *stage(3, 16),
        *stage(16, 32),
        nn.MaxPool2d(2),
        *stage(32, 32),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
