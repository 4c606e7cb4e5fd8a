"""Detectors by name, their classes and weights.

A step and a forward of each is measured in ``test_commands_as_written.py``.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.ops import FrozenBatchNorm2d

from layerbench import detection
from layerbench.errors import DeviceUnavailable, LayerbenchError, UnknownModel, UsageError
from layerbench.training.detection import models
from layerbench.training.detection.batches import ForModel
from layerbench.training.detection.memory import made_up
from layerbench.training.detection.options import EstimateOptions
from layerbench.zoo.family import weights_left_out
from layerbench.zoo.torchvision import build_detector
from tests.support.small_detectors import masked, one_stage, two_stage, with_keypoints

LIGHT = "fasterrcnn_mobilenet_v3_large_320_fpn"
LITE = "ssdlite320_mobilenet_v3_large"
# torchvision's, when this was written; a newer one may have more.
KNOWN = {
    LIGHT,
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    LITE,
}
ALL = models.names()
every_detector = pytest.mark.parametrize("name", ALL)
# What depends on the number of classes.
CLASS_LAYERS = re.compile(r"box_predictor|classification_head|mask_fcn_logits")


# --- names ---------------------------------------------------------------------------------


def test_all_of_torchvision_are_known_by_name():
    assert set(ALL) >= KNOWN
    assert list(ALL) == sorted(ALL)
    assert detection.names() == ALL


@pytest.mark.parametrize(
    "ask",
    [
        detection.get_model,
        lambda name: detection.get_model_memory_usage(1, name),
        lambda name: detection.estimate_time("cpu", 1, 1, name, 8),
        lambda name: detection.estimate_detectors([LIGHT, name], EstimateOptions()),
    ],
    ids=["get_model", "memory", "time", "estimates"],
)
def test_an_unknown_detector_is_a_value_error_with_close_matches(ask):
    with pytest.raises(ValueError, match="no detection model 'fasterrcnn_resnet50_fnp'") as error:
        ask("fasterrcnn_resnet50_fnp")
    assert "did you mean fasterrcnn_resnet50_fpn" in str(error.value)
    assert isinstance(error.value, UnknownModel)
    assert "\n" not in str(error.value)


def test_a_name_like_no_other_has_all_names():
    with pytest.raises(ValueError, match="choose from fasterrcnn_mobilenet_v3_large_320_fpn, "):
        detection.get_model("zzz")


def test_a_classifier_is_no_detector():
    with pytest.raises(ValueError, match="no detection model 'resnet50'"):
        detection.get_model("resnet50", pretrained=False)


def test_a_detector_without_weights_is_always_the_same_and_in_train_mode():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = detection.get_model(LITE, pretrained=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.training
    assert {str(tensor.device) for tensor in first.state_dict().values()} == {"cpu"}
    torch.manual_seed(6)
    second = detection.get_model(LITE, pretrained=False).state_dict()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.state_dict().items())


def test_a_device_that_is_not_there():
    with pytest.raises(DeviceUnavailable, match="--device cpu always works"):
        detection.get_model(LITE, pretrained=False, device="cuda:99")


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_device_is_cuda_if_there_is_one(monkeypatch, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert detection.get_device() == torch.device(device)


def test_the_package_has_what_it_names():
    assert set(dir(detection)) == set(detection.__all__)
    assert all(callable(getattr(detection, name)) for name in detection.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        detection.nothing  # noqa: B018


# --- classes, masks, keypoints -------------------------------------------------------------


@pytest.mark.parametrize("make", [two_stage, one_stage, masked, with_keypoints])
def test_labels_are_those_that_the_detector_knows(make):
    for classes in (2, 5):
        model = make(classes)
        assert models.class_count(model) == classes
        batch = made_up(model, 6, (40, 60))
        labels = torch.cat([target["labels"] for target in batch.targets])
        assert set(labels.tolist()) == set(range(1, classes))
        wanted = {"boxes", "labels"}
        wanted |= {"masks"} if make is masked else set()
        wanted |= {"keypoints"} if make is with_keypoints else set()
        assert all(set(target) == wanted for target in batch.targets)


def test_an_unknown_number_of_classes_leaves_the_labels_alone():
    assert models.class_count(nn.Linear(3, 2)) is None
    images = [(torch.zeros(3, 4, 4), {"boxes": torch.ones(1, 4), "labels": torch.tensor([77])})]
    assert ForModel(images, nn.Linear(3, 2))[0][1]["labels"].tolist() == [77]


def test_keypoints_lie_on_the_diagonal_of_each_box_also_of_none():
    boxes = torch.tensor([[10.0, 20.0, 44.0, 54.0]])
    for there in (boxes, boxes[:0]):
        target = {"boxes": there, "labels": torch.ones(len(there), dtype=torch.int64)}
        points = ForModel([(torch.zeros(3, 60, 60), target)], with_keypoints())[0][1]["keypoints"]
        assert points.shape == (len(there), 17, 3)
        expected = torch.arange(1, 34, 2) + 10
        assert all(torch.equal(found[:, 0], expected.float()) for found in points)
        assert all(torch.equal(found[:, 1], expected.float() + 10) for found in points)
        assert bool((points[..., 2] == 1).all())


# --- weights -------------------------------------------------------------------------------


@every_detector
def test_what_classes_do_not_touch_has_the_shapes_of_its_weights(name):
    """Else it could not begin with them; told without memory."""
    with torch.device("meta"), weights_left_out():
        trained = build_detector(name, None, "DEFAULT")
        tuned = build_detector(name, 5, "DEFAULT")
    theirs = {key: tensor.shape for key, tensor in trained.state_dict().items()}
    mine = {key: tensor.shape for key, tensor in tuned.state_dict().items()}
    assert models.class_count(tuned) == 5
    assert mine.keys() == theirs.keys()
    differ = {key for key, shape in mine.items() if theirs[key] != shape}
    assert differ
    assert [key for key in differ if not CLASS_LAYERS.search(key)] == []
    # And trains and freezes the same.
    assert {k for k, p in tuned.named_parameters() if p.requires_grad} == {
        k for k, p in trained.named_parameters() if p.requires_grad
    }
    assert [type(module) for module in tuned.modules()] == [
        type(module) for module in trained.modules()
    ]


@pytest.fixture
def published(monkeypatch):
    """Weights that are there to be loaded: every number is a half."""

    def state(*_, **__):
        with weights_left_out():
            model = build_detector(LIGHT, None, "DEFAULT")
        return {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}

    halves = state()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: halves)
    return halves


def test_weights_with_another_number_of_classes(published):
    model = models.build(LIGHT, pretrained=True, classes=5)
    state = model.state_dict()
    assert state.keys() == published.keys()
    assert state["roi_heads.box_predictor.cls_score.weight"].shape[0] == 5
    assert models.class_count(model) == 5
    random = set()
    for name, tensor in state.items():
        if tensor.shape == published[name].shape:
            assert torch.equal(tensor, published[name]), name
        else:
            random.add(name)
    predictor = "roi_heads.box_predictor"
    assert random == {
        f"{predictor}.{layer}.{what}"
        for layer in ("cls_score", "bbox_pred")
        for what in ("weight", "bias")
    }
    # An initialized weight has many values; a half would be the loaded one.
    assert state[f"{predictor}.cls_score.weight"].unique().numel() > 100
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    assert not all(parameter.requires_grad for parameter in model.parameters())


def test_weights_as_they_are(published):
    model = detection.get_model(LIGHT)
    assert models.class_count(model) == 91
    assert all(torch.equal(tensor, published[name]) for name, tensor in model.state_dict().items())


def test_another_number_of_classes_without_weights():
    model = models.build(LIGHT, classes=7)
    assert models.class_count(model) == 7
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_that_cannot_be_fetched(monkeypatch):
    def fail(*_, **__):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(LayerbenchError, match="check the network"):
        detection.get_model(LITE)


# --- the size that images are resized to ---------------------------------------------------


def test_a_chosen_shorter_side():
    images, _ = models.build(LIGHT, min_size=48).transform([torch.rand(3, 60, 90)])
    assert images.image_sizes == [(48, 72)]
    with pytest.raises(UsageError, match="ssd300_vgg16 takes images of one size"):
        models.build("ssd300_vgg16", min_size=48)
