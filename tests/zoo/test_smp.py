"""Models of segmentation-models-pytorch."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

import layerbench
from layerbench import zoo
from layerbench.errors import LayerbenchError, ModelRunError, UnknownModel, UsageError
from tests.support.zoo import run

smp = pytest.importorskip("segmentation_models_pytorch")

UNET = "smp:Unet/resnet18"
# Channels that come up from below, that are skipped over, and that a block of the decoder gives;
# and the height of its output for an image of 64 pixels.
BLOCKS = [
    (512, 256, 256, 4),
    (256, 128, 128, 8),
    (128, 64, 64, 16),
    (64, 64, 32, 32),
    (32, 0, 16, 64),
]


def test_parameters_and_flops_are_those_counted_by_hand():
    record = layerbench.structure(UNET, input="3x64x64")
    rows = {row.path: row for row in record.rows}
    # Two convolutions without bias, a scale and a shift after each.
    weights = [9 * (up + skip) * out + 9 * out * out for up, skip, out, _ in BLOCKS]
    assert rows["decoder"].parameters == sum(weights) + sum(4 * out for _, _, out, _ in BLOCKS)
    assert rows["segmentation_head"].parameters == 9 * 16 + 1
    assert rows["encoder"].parameters == 11_689_512 - 513 * 1000  # ResNet-18's but for its head
    flops = {row.path: row.flops for row in record.rows}
    for at, (up, skip, out, side) in enumerate(BLOCKS):
        path = f"decoder.blocks.{at}.conv"
        assert flops[f"{path}1.0"] == 2 * side**2 * 9 * (up + skip) * out
        assert flops[f"{path}2.0"] == 2 * side**2 * 9 * out * out
    assert not record.uncounted


def test_an_encoder_of_timm_has_timms_size():
    workload = zoo.resolve("smp:DPT/tu-test_vit", "3x64x64")
    assert zoo.resolve("smp:DPT/tu-test_vit").shape == (1, 3, 160, 160)
    assert zoo.resolve(UNET, batch=2).shape == (2, 3, 256, 256)
    shapes = zoo.build_shapes(workload)  # another size than its position embeddings'
    assert shapes.module(*shapes.args).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("smp:Unet/resnet3", "did you mean smp:Unet/resnet34"),
        ("smp:Unett/resnet18", "did you mean smp:Unet/resnet18"),
        ("smp:Unet", "such as smp:Unet/resnet34"),
        ("smp:Unet/tu-resnet5o", "did you mean tu-resnet50"),
    ],
)
def test_an_unknown_model_is_one_line_with_close_matches(model, says):
    with pytest.raises(UsageError, match=says) as caught:
        zoo.resolve(model)
    assert "\n" not in str(caught.value)


def test_what_smp_refuses_is_one_line():
    with pytest.raises(UsageError, match=r"UnetPlusPlus/mit_b0 cannot be built: ValueError"):
        zoo.build_shapes(zoo.resolve("smp:UnetPlusPlus/mit_b0"))
    with pytest.raises(ModelRunError, match="divisible by 16") as caught:
        layerbench.structure("smp:PAN/resnet18", input="3x50x50")
    assert "\n" not in str(caught.value)


def test_weights_come_through_smps_loader(monkeypatch, tmp_path):
    workload = zoo.resolve(UNET, "3x64x64", weights="imagenet")
    assert zoo.has_weights(UNET)
    published = torch.nn.Module.state_dict(smp.encoders.get_encoder("resnet18"))
    save_file(published, tmp_path / "model.safetensors")
    monkeypatch.setattr(
        smp.encoders, "hf_hub_download", lambda *_, filename, **__: tmp_path / filename
    )
    built = zoo.build(workload)
    assert all(torch.equal(built.module.encoder.state_dict()[k], v) for k, v in published.items())
    assert run(built).shape == (1, 1, 64, 64)

    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", no_network)
    with pytest.raises(LayerbenchError, match=r"no route to host.*check the network"):
        zoo.build(workload)
    with pytest.raises(UsageError, match="there are DEFAULT, imagenet, ssl, swsl"):
        zoo.resolve(UNET, weights="nope")


def test_names_are_listed_and_without_smp_the_extra_is_named(monkeypatch):
    family = next(one for one in zoo.families() if one.claims(UNET))
    names = family.names()
    assert {UNET, "smp:Segformer/mit_b0", "smp:DPT/tu-vit_base_patch16_224.augreg_in21k"} <= set(
        names
    )
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[smp\]'"):
        zoo.resolve(UNET)


def test_a_wrong_name_is_of_the_kind_that_callers_know():
    with pytest.raises(UnknownModel):
        zoo.resolve("smp:Unet/resnet3")
