"""torchvision's own detectors with little in them: steps of some milliseconds."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

CHANNELS, HIDDEN = 8, 16
# Images are resized to these.
SMALL: dict[str, Any] = {"min_size": 64, "max_size": 96}


class Backbone(nn.Sequential):
    """One convolution, an eighth of the image's sides."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, CHANNELS, 8, stride=8), nn.ReLU(inplace=True))


def _anchors() -> AnchorGenerator:
    return AnchorGenerator(((16, 32, 48),), ((0.5, 1.0, 2.0),))


def _two_stage(classes: int) -> dict[str, Any]:
    pooled = 4
    return {
        **SMALL,
        "rpn_anchor_generator": _anchors(),
        "rpn_pre_nms_top_n_train": 100,
        "rpn_pre_nms_top_n_test": 100,
        "box_batch_size_per_image": 16,
        "box_detections_per_img": 10,
        "box_roi_pool": MultiScaleRoIAlign(["0"], pooled, 2),
        "box_head": TwoMLPHead(CHANNELS * pooled**2, HIDDEN),
        "box_predictor": FastRCNNPredictor(HIDDEN, classes),
    }


def two_stage(classes: int = 4) -> FasterRCNN:
    """With a proposal network: four convolutions, of which three are the network's."""
    torch.manual_seed(0)
    return FasterRCNN(Backbone(), None, **_two_stage(classes))


def one_stage(classes: int = 4) -> RetinaNet:
    """Without one."""
    torch.manual_seed(0)
    return RetinaNet(Backbone(), classes, anchor_generator=_anchors(), **SMALL)


def masked(classes: int = 4) -> MaskRCNN:
    """That learns from masks."""
    torch.manual_seed(0)
    return MaskRCNN(
        Backbone(),
        None,
        **_two_stage(classes),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 4, 2),
        mask_head=MaskRCNNHeads(CHANNELS, (CHANNELS,), 1),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, classes),
    )


def with_keypoints(classes: int = 4) -> KeypointRCNN:
    """That learns from keypoints."""
    torch.manual_seed(0)
    return KeypointRCNN(
        Backbone(),
        None,
        **_two_stage(classes),
        keypoint_roi_pool=MultiScaleRoIAlign(["0"], 4, 2),
        keypoint_head=KeypointRCNNHeads(CHANNELS, (CHANNELS,)),
        keypoint_predictor=KeypointRCNNPredictor(CHANNELS, 17),
    )


SMALL_DETECTORS = {
    "fasterrcnn_resnet50_fpn": two_stage,
    "retinanet_resnet50_fpn": one_stage,
    "maskrcnn_resnet50_fpn": masked,
    "keypointrcnn_resnet50_fpn": with_keypoints,
}


def built_small(
    model: str, classes: int | None, weights: str | None, min_size: int | None = None
) -> nn.Module:
    """Stands for `layerbench.zoo.torchvision.build_detector`."""
    assert weights is None
    assert min_size is None
    return SMALL_DETECTORS[model](4 if classes is None else classes)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that a measurement must leave as it was: tensors, modes, attributes and hooks."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            held = value if isinstance(value, (bool, int, float, str, tuple, list)) else None
            entries = list(value) if isinstance(value, dict) else None
            found[f"{path}.{name}"] = (type(value), held, entries)
    for name, tensor in model.state_dict().items():
        found[name] = tensor.clone().tolist()
    for name, parameter in model.named_parameters():
        found[f"{name}.grad"] = parameter.grad
    return found


def read_trace(path: Path) -> bytes:
    """The JSON of a trace, compressed or not."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data
