"""Models that benchmarks measure, where a name alone does not say them."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn


def vit_base_with_100_classes() -> nn.Module:
    """The ViT-B/16 of timm as the study of ViT peaks had it."""
    import timm

    model: nn.Module = timm.create_model("vit_base_patch16_224", num_classes=100)
    return model


def resnet50_with_100_classes() -> nn.Module:
    """The ResNet-50 of timm with the same head."""
    import timm

    model: nn.Module = timm.create_model("resnet50", num_classes=100)
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

SHARE = 0.10
"""Of the block's time, what is planted there."""

_ROUNDS = 40


def slowed_mobilenet_v2() -> nn.Module:
    """MobileNet-V2 whose fourth inverted residual does a tenth more work.

    It multiplies small matrices, as often as takes a tenth of the block's time. That time is
    measured while another copy of the model runs in turn, as in a live comparison: it finds the
    caches as it leaves them.
    """
    from torchvision.models import mobilenet_v2
    from torchvision.models.mobilenetv2 import InvertedResidual

    class Slowed(InvertedResidual):
        def forward(self, x: Tensor) -> Tensor:
            _multiply(times)
            return super().forward(x)

    model: nn.Module = mobilenet_v2().eval()
    block = model.get_submodule(PLANTED)
    block_s, product_s = _calibrated(model, mobilenet_v2().eval(), block)
    times = round(SHARE * block_s / product_s)
    block.__class__ = Slowed
    return model


_LEFT, _RIGHT, _PRODUCT = (torch.rand(32, 32) for _ in range(3))
_MANY = 100


def _multiply(times: int) -> None:
    for _ in range(times):
        torch.mm(_LEFT, _RIGHT, out=_PRODUCT)


def _calibrated(model: nn.Module, other: nn.Module, block: nn.Module) -> tuple[float, float]:
    """Median times of the block and of one product, seconds."""
    blocks, products = [], []
    original = block.forward

    def timed(x: Tensor) -> Tensor:
        begin = time.perf_counter()
        output: Tensor = original(x)
        blocks.append(time.perf_counter() - begin)
        return output

    x = torch.rand(1, 3, 224, 224)
    block.forward = timed
    try:
        with torch.inference_mode():
            for _ in range(_ROUNDS):
                other(x)
                model(x)
                begin = time.perf_counter()
                _multiply(_MANY)
                products.append((time.perf_counter() - begin) / _MANY)
    finally:
        del block.forward
    return statistics.median(blocks), statistics.median(products)
