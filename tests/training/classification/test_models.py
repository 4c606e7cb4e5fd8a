"""Heads for another number of classes, on models that end in different ways."""

from __future__ import annotations

import math

import pytest
import torch

from layerbench import zoo
from layerbench.errors import ModelRunError
from layerbench.training.classification.models import (
    build_classifier,
    classification_loss,
    logits_of,
)

# model, size, parameters of its published 1000-class form that are the head's
MODELS = [
    ("resnet18", 64, 513 * 1000),
    ("mobilenet_v2", 64, 1281 * 1000),
    ("squeezenet1_1", 64, 513 * 1000),
    ("googlenet", 64, 1025 * 1000 + 2 * 1025 * 1000),
    ("timm:test_vit", 160, None),
    ("tests/models.py:digit_reader", 16, None),
]


@pytest.mark.parametrize(("model", "size", "head"), MODELS)
def test_another_number_of_classes(model, size, head):
    workload = zoo.resolve(model, f"2x3x{size}x{size}", mode="train")
    before = sum(p.numel() for p in zoo.build(workload).module.parameters())
    module = build_classifier(workload, 7)
    images = torch.rand(2, 3, size, size)
    assert logits_of(module.train()(images)).shape == (2, 7)
    assert logits_of(module.eval()(images)).shape == (2, 7)
    if head is not None:
        after = sum(p.numel() for p in module.parameters())
        assert before - after == head * (1000 - 7) / 1000
    assert all(not hooks for m in module.modules() for hooks in [m._forward_hooks])


def test_the_head_comes_from_the_seed():
    first, again, other = (
        build_classifier(zoo.resolve("resnet18", "2x3x32x32", seed=seed), 5).fc.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_fitting_model_stays_as_it_is():
    workload = zoo.resolve("tests/models.py:digit_reader", "2x3x16x16")
    expected = zoo.build(workload).module.state_dict()
    found = build_classifier(workload, 10).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_what_is_no_classifier():
    with pytest.raises(ModelRunError, match=r"not logits .*: it is not a classifier"):
        build_classifier(zoo.resolve("lraspp_mobilenet_v3_large", "2x3x64x64"), 5)


def test_images_that_the_model_does_not_take():
    with pytest.raises(ModelRunError, match="does not take images of 3x8x8"):
        build_classifier(zoo.resolve("alexnet", "2x3x8x8"), 5)


def test_auxiliary_heads_weigh_less():
    # Equal logits: cross-entropy is log(number of classes).
    logits = torch.zeros(3, 8)
    labels = torch.tensor([0, 1, 2])
    assert float(classification_loss(logits, labels)) == pytest.approx(math.log(8))
    assert float(classification_loss((logits, logits), labels)) == pytest.approx(1.4 * math.log(8))


# timm's published counts.
SHORTHANDS = {
    "vit": 86_567_656,
    "deit": 86_567_656,
    "swin": 87_768_224,
    "resnet": 25_557_032,
}


@pytest.mark.parametrize("name", zoo.SHORTHANDS)
def test_one_word_names_are_models(name):
    built = zoo.build_shapes(zoo.resolve(name))
    assert built.module(*built.args).shape == (1, 1000)
    assert sum(parameter.numel() for parameter in built.module.parameters()) == SHORTHANDS[name]


def test_one_word_names():
    assert zoo.resolve("vit").model == "timm:vit_base_patch16_224"
    assert zoo.resolve("resnet").model == "timm:resnet50"
    assert zoo.has_weights("vit")
    assert zoo.has_weights("resnet18")
    assert not zoo.has_weights("tests/models.py:small")


@pytest.mark.parametrize(
    "model", ["timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"]
)
def test_models_made_for_one_size_take_another(model):
    with torch.device("meta"):
        built = zoo.build_shapes(zoo.resolve(model, "2x3x160x160"))
    assert built.module(*built.args).shape == (2, 1000)
