"""Small models whose times and structure are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layerbench.environment.devices.clocks import ManualClock


class Takes(nn.Module):
    """Lets a known time pass on a manual clock, and gives its input back."""

    def __init__(self, clock: ManualClock, nanoseconds: int) -> None:
        super().__init__()
        self.clock = clock
        self.nanoseconds = nanoseconds

    def forward(self, x: Any) -> Any:
        self.clock.advance(self.nanoseconds)
        return x


class Composite(nn.Module):
    """Runs its children in turn and spends time of its own before, between and after them."""

    def __init__(self, clock: ManualClock, own: int, *children: nn.Module) -> None:
        super().__init__()
        self.clock = clock
        self.own = own
        self.inner = nn.ModuleList(children)

    def forward(self, x: Any) -> Any:
        for child in self.inner:
            self.clock.advance(self.own)
            x = child(x)
        self.clock.advance(self.own)
        return x


class ResidualBlock(nn.Module):
    """Two convolutions, an in-place ReLU, and an addition of the module's own."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.relu(self.conv(x)))


class Small(nn.Module):
    """Two residual blocks, pooling and flatten as functions, one layer never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(ResidualBlock(), ResidualBlock())
        self.unused = nn.Linear(7, 7)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x))
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.head(torch.flatten(x, 1))


class Calls(nn.Module):
    """Whatever a function of the module and its input makes of it."""

    def __init__(self, run: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def small() -> Small:
    """What ``tests/models.py:small`` gives to a command line."""
    torch.manual_seed(0)
    return Small()


class SlowBlock(ResidualBlock):
    """Computes what its parent does several times over."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            super().forward(x)
        return super().forward(x)


def slow_small() -> Small:
    """`small` with a second block that takes four times as long."""
    model = small()
    model.blocks[1] = SlowBlock()
    return model


def small_attention() -> nn.Module:
    """torchvision's vision transformer with its fused attention, as small as it can be."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def small_with_input() -> tuple[nn.Module, torch.Tensor]:
    """A model that brings its own input."""
    return small(), torch.rand(2, 3, 16, 16)


class Segments(nn.Module):
    """Logits of every pixel in a mapping, of images that are handed over by name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 5, 1)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(pixels)}


def segmenter_with_inputs() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model that is no classifier, and brings its own inputs by name."""
    torch.manual_seed(0)
    return Segments(), {"pixels": torch.rand(2, 1, 8, 6)}


def no_module() -> int:
    """Not what a model callable should give."""
    return 3


def digit_reader(classes: int = 10) -> nn.Module:
    """A small network without batch statistics or dropout, for images of any size."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


def dropping_reader() -> nn.Module:
    """`digit_reader` with dropout: what a step draws changes the weights."""
    reader = digit_reader()
    reader.insert(8, nn.Dropout(0.2))
    return reader


def short_swin() -> nn.Module:
    """torchvision's ``swin_t`` up to its second stage: each kind of block, and their merging."""
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 96, [2, 2], [3, 6], [7, 7])


def short_vit() -> nn.Module:
    """torchvision's ``vit_b_32`` with two of its twelve blocks, which are all alike."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(224, 32, 2, 12, 768, 3072)
