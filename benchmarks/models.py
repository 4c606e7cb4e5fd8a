"""Models that benchmarks measure, where a name alone does not say them."""

from __future__ import annotations

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

# Of the block's 56 rows of pixels; with what a call costs in any case this is a tenth of its time.
_MORE_ROWS = 4


def slowed_mobilenet_v2() -> nn.Module:
    """MobileNet-V2 whose fourth inverted residual does about a tenth more work.

    It computes some rows of its input once more and throws the result away.
    """
    from torchvision.models import mobilenet_v2
    from torchvision.models.mobilenetv2 import InvertedResidual

    class Slowed(InvertedResidual):
        def forward(self, x: Tensor) -> Tensor:
            self.conv(x[:, :, :_MORE_ROWS])
            return super().forward(x)

    model: nn.Module = mobilenet_v2()
    block = model.get_submodule(PLANTED)
    block.__class__ = Slowed
    return model
