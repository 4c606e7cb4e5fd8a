"""Models of open_clip: images and token ids, or images alone."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

import layerbench
from layerbench import zoo
from layerbench.errors import LayerbenchError, UnknownModel, UsageError
from tests.support.zoo import run

open_clip = pytest.importorskip("open_clip")

TINY = "open_clip:tiny-clip"
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 16,
        "head_width": 8,
        "layers": 1,
    },
    "text_cfg": {"context_length": 5, "vocab_size": 50, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A configuration with weights, as if open_clip had it."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-clip", CONFIG)
    tags = {"mine": {"url": "https://weights/tiny", "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", tags)


def block(width):
    """Parameters of one residual block of attention and a perceptron four times as wide."""
    attention = 4 * width * width + 4 * width
    return attention + 8 * width * width + 5 * width + 2 * 2 * width


def test_the_whole_takes_images_and_as_many_texts():
    built = zoo.build(zoo.resolve(TINY, batch=3))
    images, texts = built.args
    assert images.shape == (3, 3, 32, 32)
    assert texts.shape == (3, 5)
    assert texts.dtype == torch.int64
    assert texts.min() >= 0
    assert texts.max() < 50
    image_features, text_features, _ = run(built)
    assert image_features.shape == text_features.shape == (3, 8)
    again = zoo.build(zoo.resolve(TINY, batch=3))
    assert torch.equal(texts, again.args[1])


def test_parameters_and_flops_are_those_counted_by_hand():
    tower = 16 * 3 * 16 * 16 + 16 + (4 + 1) * 16 + 2 * (2 * 16) + block(16) + 16 * 8
    text = 50 * 8 + 5 * 8 + block(8) + 2 * 8 + 8 * 8
    whole = layerbench.structure(TINY)
    assert whole.parameters == tower + text + 1  # and the scale of the logits
    image = layerbench.structure(f"{TINY}/visual")
    assert image.parameters == tower
    # Patches; projections, scores and values of five tokens; the perceptron; the last projection.
    patches, tokens = 2 * 4 * 16 * 3 * 16 * 16, 5
    layer = 2 * tokens * 12 * 16 * 16 + 2 * 2 * tokens * tokens * 16
    assert image.flops == patches + layer + 2 * 16 * 8
    assert not image.uncounted


def test_the_published_size_of_clip():
    built = zoo.build_shapes(zoo.resolve("open_clip:ViT-B-32"))
    assert sum(one.numel() for one in built.module.parameters()) == 151_277_313
    assert [tuple(one.shape) for one in built.args] == [(1, 3, 224, 224), (1, 77)]


def test_the_image_tower_takes_other_sizes():
    assert run(zoo.build(zoo.resolve(f"{TINY}/visual", "2x3x64x32"))).shape == (2, 8)
    assert zoo.resolve(f"{TINY}/visual").shape == (1, 3, 32, 32)
    assert zoo.resolve("open_clip:ViT-B-32").input == "imagenet"
    # One with a text tower of the hub needs no network for its image tower.
    hub = zoo.build_shapes(zoo.resolve("open_clip:roberta-ViT-B-32/visual"))
    assert hub.module(*hub.args).shape == (1, 512)


def test_weights_come_through_open_clips_loader(monkeypatch, tmp_path):
    workload = zoo.resolve(TINY, weights="DEFAULT")
    shapes = zoo.build(workload, load_weights=False)
    # As the weights configure it.
    assert type(shapes.module.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    torch.save(shapes.module.state_dict(), tmp_path / "tiny.pt")
    place = str(tmp_path / "tiny.pt")
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: place)
    other = zoo.resolve(f"{TINY}/visual", "3x64x64", weights="mine", seed=7)
    loaded = zoo.build(other).module.state_dict()
    published = shapes.module.visual.state_dict()
    assert loaded["positional_embedding"].shape == (17, 16)  # interpolated
    assert all(
        torch.equal(published[k], v) for k, v in loaded.items() if k != "positional_embedding"
    )

    def no_network(*_, **__):
        raise OSError("no route to host")

    handlers = list(logging.getLogger().handlers)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_network)
    with pytest.raises(LayerbenchError, match=r"no route to host.*check the network") as caught:
        zoo.build(workload)
    assert "\n" not in str(caught.value)
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("open_clip:ViT-B-33", "did you mean open_clip:ViT-B-32"),
        ("open_clip:ViT-B-32/visua", "did you mean open_clip:ViT-B-32/visual"),
    ],
)
def test_an_unknown_model_is_one_line_with_close_matches(model, says):
    with pytest.raises(UnknownModel, match=says) as caught:
        zoo.resolve(model)
    assert "\n" not in str(caught.value)


def test_weights_that_there_are_none_of_are_one_line():
    assert not zoo.has_weights("open_clip:ViT-S-32")
    with pytest.raises(UsageError, match="no published weights"):
        zoo.resolve("open_clip:ViT-S-32", weights="DEFAULT")
    with pytest.raises(UsageError, match="there are DEFAULT, mine"):
        zoo.resolve(TINY, weights="nope")


def test_a_size_that_cannot_be_is_one_line():
    with pytest.raises(LayerbenchError, match="Kernel size can't be greater") as caught:
        layerbench.structure(f"{TINY}/visual", input="3x8x8")
    assert "\n" not in str(caught.value)


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[open-clip\]'"):
        zoo.resolve(TINY)
