"""Models that published figures were measured on, where a name alone does not say them."""

from __future__ import annotations

from torch import nn


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
