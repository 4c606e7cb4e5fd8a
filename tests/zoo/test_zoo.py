"""Model specs, what they build, and what is said when they cannot be."""

from __future__ import annotations

import sys
import warnings
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import get_model_builder, list_models

from layerbench import zoo
from layerbench.errors import (
    BadInput,
    LayerbenchError,
    UnknownModel,
    UsageError,
)
from layerbench.zoo import torchvision as torchvision_family
from tests.support.zoo import run


def state(module: nn.Module) -> torch.Tensor:
    """All parameters and buffers, end to end."""
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


# --- resolve ------------------------------------------------------------------------------------


def default_input(name: str) -> tuple[int, ...]:
    package = get_model_builder(name).__module__
    if ".segmentation." in package:
        return (1, 3, 500, 334)
    if ".detection." in package:
        return (1, 3, 480, 640)
    if ".optical_flow." in package:
        return (1, 3, 256, 256)
    if ".video." in package:
        side = 112 if package.endswith("resnet") else 224
        return (1, 3, 16, side, side)
    return (1, 3, 224, 224)


def test_every_torchvision_model_resolves_to_its_tasks_input():
    resolved = {name: zoo.resolve(name).shape for name in list_models()}
    assert resolved == {name: default_input(name) for name in list_models()}
    assert len(resolved) > 100


def test_a_workload_says_all_that_was_asked_for():
    workload = zoo.resolve(
        "resnet18",
        "pascal",
        batch=4,
        dtype="bfloat16",
        memory_format="channels_last",
        mode="train",
        seed=7,
        weights="DEFAULT",
        compile=True,
    )
    assert workload.model_dump() == {
        "model": "resnet18",
        "input": "pascal",
        "shape": (4, 3, 500, 334),
        "batch": 4,
        "dtype": "bfloat16",
        "memory_format": "channels_last",
        "mode": "train",
        "seed": 7,
        "weights": "DEFAULT",
        "compile": "default",
    }


def test_an_unknown_model_has_close_matches():
    with pytest.raises(UnknownModel, match=r"'mobilnet_v2'; did you mean mobilenet_v2"):
        zoo.resolve("mobilnet_v2")


@pytest.mark.parametrize("model", ["", "no such model at all", "resnet_", "net.py"])
def test_unknown_models_are_refused_in_one_line(model):
    with pytest.raises(UnknownModel) as caught:
        zoo.resolve(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"batch": 0}, UsageError),
        ({"batch": -1}, UsageError),
        ({"input": "8x3x224x224", "batch": 2}, BadInput),
        ({"input": "own"}, BadInput),
        ({"dtype": "float8"}, UsageError),
        ({"mode": "test"}, UsageError),
        ({"memory_format": "channels_first"}, UsageError),
        ({"seed": -1}, UsageError),
        ({"weights": "IMAGENET99"}, UsageError),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, error):
    with pytest.raises(error) as caught:
        zoo.resolve("resnet18", **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_weights_name_the_known_ones():
    with pytest.raises(UsageError, match="DEFAULT, IMAGENET1K_V1"):
        zoo.resolve("resnet50", weights="V9")
    assert zoo.resolve("resnet50", weights="ResNet50_Weights.IMAGENET1K_V2").weights is not None


def test_model_names_are_those_of_all_families():
    names = zoo.model_names()
    assert {"mobilenet_v2", "fasterrcnn_resnet50_fpn", "raft_small"} <= set(names)
    assert len(names) == len(set(names))


def test_families_are_found_without_a_list():
    found = [family.name for family in zoo.families()]
    libraries = {"hf", "open_clip", "segmentation-models-pytorch", "timm", "torchvision"}
    assert set(found[:-3]) == libraries
    assert set(found[-3:]) == {"TorchScript", "torch.export", "user"}


# --- build --------------------------------------------------------------------------------------


def test_a_classifier_is_built_seeded_and_in_eval_mode():
    workload = zoo.resolve("squeezenet1_1", "cifar100", batch=2, seed=3)
    first, second = zoo.build(workload), zoo.build(workload)
    other = zoo.build(workload.model_copy(update={"seed": 4}))
    assert torch.equal(state(first.module), state(second.module))
    assert torch.equal(first.args[0], second.args[0])
    assert not torch.equal(first.args[0], other.args[0])
    assert not torch.equal(state(first.module), state(other.module))
    assert not any(module.training for module in first.module.modules())
    assert first.args[0].shape == (2, 3, 32, 32)
    assert 0 <= first.args[0].min() <= first.args[0].max() < 1
    assert run(first).shape == (2, 1000)


def test_building_leaves_the_callers_generator_and_default_device_alone():
    workload = zoo.resolve("squeezenet1_1", "cifar100")
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    with torch.device("meta"):
        built = zoo.build(workload)
    assert torch.equal(torch.rand(3), expected)
    assert {p.device.type for p in built.module.parameters()} == {"cpu"}
    assert built.args[0].device.type == "cpu"


def test_dtype_and_memory_format_reach_parameters_and_inputs():
    workload = zoo.resolve(
        "mobilenet_v2", "cifar100", batch=2, dtype="bfloat16", memory_format="channels_last"
    )
    built = zoo.build(workload)
    counter = built.module.features[0][1].num_batches_tracked
    assert {p.dtype for p in built.module.parameters()} == {torch.bfloat16}
    assert counter.dtype == torch.int64
    assert built.args[0].dtype == torch.bfloat16
    assert built.args[0].is_contiguous(memory_format=torch.channels_last)
    assert not built.args[0].is_contiguous()
    assert built.module.features[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_reaches_video_models():
    workload = zoo.resolve("r3d_18", "1x3x4x16x16", memory_format="channels_last")
    built = zoo.build(workload)
    assert built.module.stem[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert built.args[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert run(built).shape == (1, 400)


def test_train_mode():
    built = zoo.build(zoo.resolve("squeezenet1_1", "cifar100", mode="train"))
    assert all(module.training for module in built.module.modules())


def test_building_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = zoo.build(zoo.resolve("googlenet"))
    assert run(built).shape == (1, 1000)


@pytest.mark.parametrize("name", ["quantized_mobilenet_v2", "quantized_shufflenet_v2_x0_5"])
def test_quantizable_models_run_as_float_models(name):
    built = zoo.build(zoo.resolve(name, "3x64x64"))
    assert run(built).shape == (1, 1000)


def test_segmentation_takes_one_tensor():
    built = zoo.build(zoo.resolve("lraspp_mobilenet_v3_large", "2x3x64x64"))
    assert run(built)["out"].shape == (2, 21, 64, 64)


def test_optical_flow_takes_two_different_images():
    built = zoo.build(zoo.resolve("raft_small", "1x3x128x128"))
    one, two = built.args
    assert one.shape == two.shape == (1, 3, 128, 128)
    assert not torch.equal(one, two)


def test_a_detector_takes_a_list_of_images_and_downloads_nothing(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked for a download")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    built = zoo.build(zoo.resolve("ssdlite320_mobilenet_v3_large", "2x3x96x128"))
    (images,) = built.args
    assert [tuple(image.shape) for image in images] == [(3, 96, 128)] * 2
    found = run(built)
    assert [set(one) for one in found] == [{"boxes", "scores", "labels"}] * 2


def test_a_detector_in_training_gets_targets_it_learns_from():
    workload = zoo.resolve("ssdlite320_mobilenet_v3_large", "2x3x96x128", mode="train")
    built = zoo.build(workload)
    losses = built.module(*built.args)
    assert set(losses) == {"bbox_regression", "classification"}
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


@pytest.mark.parametrize(
    ("kind", "extra", "shape"),
    [("MaskRCNN", "masks", (5, 60, 80)), ("KeypointRCNN", "keypoints", (5, 17, 3))],
)
def test_targets_hold_what_the_heads_learn_from(kind, extra, shape):
    from torchvision.models import detection

    module = object.__new__(getattr(detection, kind))
    target = torchvision_family._target(module, torch.rand(3, 60, 80))
    left, top, right, bottom = target["boxes"].unbind(1)
    assert target[extra].shape == shape
    assert ((left >= 0) & (left < right) & (right <= 80)).all()
    assert ((top >= 0) & (top < bottom) & (bottom <= 60)).all()
    assert target["labels"].tolist() == [1] * 5
    if extra == "masks":
        assert (target["masks"].flatten(1).sum(1) > 0).all()
    else:
        points = target["keypoints"]
        assert (points[:, :, 0] > left[:, None]).all()
        assert (points[:, :, 0] < right[:, None]).all()


def test_weights_that_cannot_be_had_are_one_clear_line(monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(LayerbenchError, match=r"no route to host.*check the network") as caught:
        zoo.build(zoo.resolve("squeezenet1_1", "cifar100", weights="DEFAULT"))
    assert "\n" not in str(caught.value)


def test_weights_come_through_torchvisions_loader(monkeypatch):
    module = get_model_builder("squeezenet1_1")(weights=None)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *a, **k: module.state_dict()
    )
    built = zoo.build(zoo.resolve("squeezenet1_1", "cifar100", weights="IMAGENET1K_V1"))
    assert torch.equal(state(built.module), state(module))


# --- timm ---------------------------------------------------------------------------------------


def test_timm_models_take_the_size_timm_records():
    pytest.importorskip("timm")
    assert zoo.resolve("timm:resnet10t").input == "1x3x176x176"
    assert zoo.resolve("timm:vit_base_patch16_384", batch=2).shape == (2, 3, 384, 384)
    assert zoo.resolve("timm:vit_base_patch16_224").input == "imagenet"


def test_a_timm_model_runs():
    pytest.importorskip("timm")
    built = zoo.build(zoo.resolve("timm:test_vit", batch=2))
    assert run(built).shape == (2, 1000)


def test_unknown_timm_models_and_tags():
    pytest.importorskip("timm")
    with pytest.raises(UnknownModel, match="did you mean timm:"):
        zoo.resolve("timm:vit_base_patch16_223")
    with pytest.raises(UsageError, match="nope"):
        zoo.resolve("timm:vit_base_patch16_224", weights="nope")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[timm\]'"):
        zoo.resolve("timm:resnet18")
    assert "resnet18" in zoo.model_names()
