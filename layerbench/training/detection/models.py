"""Detectors by name, and where they run."""

from __future__ import annotations

import torch
from torch import nn

from layerbench.environment import devices
from layerbench.errors import UnknownModel, did_you_mean
from layerbench.records.recipes import TrainingPrecision
from layerbench.records.workload import FORMATS
from layerbench.zoo.family import seeded_on_cpu
from layerbench.zoo.torchvision import build_detector, detectors

_MOST_CLOSE_MATCHES = 3


def names() -> tuple[str, ...]:
    """Every detection model that torchvision has registered, in alphabetical order."""
    return tuple(sorted(detectors()))


def check(name: str) -> str:
    """The name, if it is a detector's.

    Raises:
        UnknownModel: it is none; the message has close matches. It is a ValueError too.
    """
    if name in names():
        return name
    close = did_you_mean(name, names(), _MOST_CLOSE_MATCHES)
    hint = close or f"choose from {', '.join(names())}"
    raise UnknownModel(f"torchvision has no detection model {name!r}; {hint}")


def get_model(
    model_name: str, pretrained: bool = True, device: str | torch.device = "cpu"
) -> nn.Module:
    """A torchvision detector, in train mode as torchvision builds it.

    Args:
        model_name: one of `names`.
        pretrained: with torchvision's weights, which are downloaded where they are not there yet;
            else with random ones, always the same.
        device: where it goes.

    Raises:
        ValueError: torchvision has no such detection model; the message has close matches.
        LayerbenchError: the weights cannot be loaded, or the device is not there.
    """
    return build(check(model_name), pretrained=pretrained).to(devices.get(str(device)).torch_device)


def get_device() -> torch.device:
    """CUDA if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(
    name: str,
    *,
    pretrained: bool = False,
    classes: int | None = None,
    min_size: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """A detector on the CPU.

    Args:
        name: one of `names`.
        pretrained: see `layerbench.zoo.torchvision.build_detector`.
        classes: with the background; ``None`` for as many as torchvision's.
        min_size: see `layerbench.zoo.torchvision.build_detector`.
        seed: of what is random.

    Raises:
        LayerbenchError: the weights cannot be loaded.
        UsageError: the detector's size cannot be chosen.
    """
    with seeded_on_cpu(seed):
        return build_detector(name, classes, "DEFAULT" if pretrained else None, min_size)


def placed(model: nn.Module, device: torch.device, precision: TrainingPrecision) -> nn.Module:
    """The detector on a device, its floating parameters and buffers in the precision's format."""
    return model.to(device, getattr(torch, FORMATS[precision]))


def class_count(model: nn.Module) -> int | None:
    """How many classes a detector tells apart, the background included; ``None`` if unknown."""
    for path in ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor"):
        layer = _at(model, path)
        if isinstance(layer, nn.Linear):
            return layer.out_features
    counted = getattr(_at(model, "head.classification_head"), "num_classes", None)
    if counted is None:
        # SSD's heads keep it under another name.
        counted = getattr(_at(model, "head.classification_head"), "num_columns", None)
    return counted if isinstance(counted, int) else None


def wants_masks(model: nn.Module) -> bool:
    """Whether it learns from masks."""
    return _at(model, "roi_heads.mask_predictor") is not None


def wants_keypoints(model: nn.Module) -> bool:
    """Whether it learns from keypoints."""
    return _at(model, "roi_heads.keypoint_predictor") is not None


def _at(model: nn.Module, path: str) -> object | None:
    value: object | None = model
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
