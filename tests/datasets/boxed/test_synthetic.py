"""Images with boxes that are made up: their sizes, shapes and colours."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms.v2 import functional

from layerbench.datasets.boxed._palette import COLOURS, DISTINCT
from layerbench.datasets.boxed._synthetic import SyntheticBoxedImages
from layerbench.datasets.boxed.synthetic import CLASSES
from tests.support.boxed import check_target, opened
from tests.support.small_data import pets


def test_how_many_are_made_up():
    splits = opened(None, "synthetic")
    assert (len(splits.train), len(splits.val)) == (256, 64)
    assert splits.notes == ("64 different images are made up, and come again by number",)
    splits = opened(None, "synthetic", samples=2, size=(30, 20))
    assert (len(splits.train), len(splits.val), splits.notes) == (2, 1, ())
    assert splits.val[0][0].shape == (3, 30, 20)


def test_a_made_up_image_has_the_size_of_a_photograph():
    assert opened(None, "synthetic").val[0][0].shape == (3, 375, 500)


def test_made_up_images_depend_on_seed_and_number():
    first, again, other = (
        opened(None, "synthetic", samples=300, size=(40, 60), seed=seed).val for seed in (3, 3, -3)
    )
    assert torch.equal(first[5][0], again[5][0])
    assert not torch.equal(first[5][0], other[5][0])
    assert not torch.equal(first[5][0], first[6][0])
    assert len(first) > DISTINCT
    assert torch.equal(first[5][0], first[5 + DISTINCT][0])
    assert torch.equal(first[5][1]["boxes"], first[5 + DISTINCT][1]["boxes"])


def test_a_made_up_image_is_decoded_from_jpeg_at_each_reading(monkeypatch):
    images = opened(None, "synthetic", samples=8, size=(40, 60)).val
    read = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: read.append(real(file).format) or real(file))
    _ = images[0], images[0], images[1]
    assert read == ["JPEG"] * 3


def test_no_more_made_up_images_are_kept_than_said():
    images = SyntheticBoxedImages(3 * DISTINCT, (12, 16), 0, 0, masks=False, augmented=True)
    for index in range(len(images)):
        images[index]
    assert len(images._encoded) == DISTINCT


def test_shapes_are_of_the_colour_and_form_their_label_says():
    images = opened(None, "synthetic", samples=160, size=(96, 128), masks=True).val
    seen, counts = set(), set()
    for index in range(len(images)):
        image, target = images[index]
        counts.add(len(target["labels"]))
        for label, mask in zip(target["labels"].tolist(), target["masks"].bool(), strict=True):
            colour, form = CLASSES[label].split()
            seen.add(label)
            mean = image[:, mask].mean(dim=1) * 255
            assert (mean - torch.tensor(COLOURS[colour])).abs().max() < 25
            rows, columns = mask.any(1).sum(), mask.any(0).sum()
            filled = float(mask.sum() / (rows * columns))
            assert filled == (1 if form == "rectangle" else pytest.approx(math.pi / 4, abs=0.08))
    assert seen == set(range(1, 9))
    assert counts == {2, 3, 4, 5}


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
def test_very_small_images_are_made_up_too(size):
    image, target = opened(None, "synthetic", samples=4, size=size, masks=True).val[0]
    assert image.shape == (3, *size)
    check_target(target, size, len(CLASSES), True)


def test_a_detector_trains_on_them(tmp_path):
    pets(tmp_path, without_box=1, dot=2)
    splits = opened(tmp_path)
    images, targets = zip(*(splits.train[index] for index in range(4)), strict=True)
    assert len(targets[1]["labels"]) == 0
    assert functional.get_size(images[0]) != functional.get_size(images[1])
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=len(splits.classes), min_size=96,
        box_batch_size_per_image=16,
    ).train()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    before = model.roi_heads.box_predictor.cls_score.weight.detach().clone()
    losses = model(list(images), list(targets))
    loss = sum(losses.values())
    assert torch.isfinite(loss)
    loss.backward()
    optimizer.step()
    after = model.roi_heads.box_predictor.cls_score.weight
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
