"""Models that benchmarks measure, where a name alone does not say them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def vit_base_with_100_classes() -> nn.Module:
    """The ViT-B/16 of timm as the study of ViT peaks had it."""
    import timm

    model: nn.Module = timm.create_model("vit_base_patch16_224", num_classes=100)
    return model


def vit_large_with_10_classes() -> nn.Module:
    """The ViT-L/16 of torchvision with a head for CIFAR-10."""
    from torchvision.models import vit_l_16

    model: nn.Module = vit_l_16(num_classes=10)
    return model


def mnasnet_with_10_classes() -> nn.Module:
    """MNASNet as xMem trained it."""
    return _torchvision("mnasnet1_0")


def mobilenet_v3_large_with_10_classes() -> nn.Module:
    """MobileNet-V3 (large) as xMem trained it."""
    return _torchvision("mobilenet_v3_large")


def mobilenet_v3_small_with_10_classes() -> nn.Module:
    """MobileNet-V3 (small) as xMem trained it."""
    return _torchvision("mobilenet_v3_small")


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, num_classes=10)
    return model


PLANTED = "features.4"
"""The block of MobileNet-V2 that `slowed_mobilenet_v2` slows down."""

# Each is two passes over the block's input: together about a tenth of the block's time.
_MORE_PASSES = 4


def slowed_mobilenet_v2() -> nn.Module:
    """MobileNet-V2 whose fourth inverted residual does about a tenth more work.

    It multiplies its input by itself a few times and throws the products away.
    `benchmarks.verdicts` states how much slower the block came out.
    """
    from torchvision.models import mobilenet_v2
    from torchvision.models.mobilenetv2 import InvertedResidual

    class Slowed(InvertedResidual):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(_MORE_PASSES):
                torch.mul(x, x)
            return super().forward(x)

    model: nn.Module = mobilenet_v2()
    model.get_submodule(PLANTED).__class__ = Slowed
    return model
