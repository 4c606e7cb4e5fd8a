"""What tests of data sets with boxes share."""

from __future__ import annotations

import torch

from layerbench.datasets import boxed
from layerbench.datasets.boxed import BoxedDatasetOptions


def opened(root, name="pets", **asked):
    return boxed.get(name).open(BoxedDatasetOptions(root, **asked))


def check_target(target, size, classes, masks):
    height, width = size
    count = len(target["labels"])
    assert set(target) == ({"boxes", "labels", "masks"} if masks else {"boxes", "labels"})
    assert (target["boxes"].dtype, target["boxes"].shape) == (torch.float32, (count, 4))
    assert target["labels"].dtype == torch.int64
    assert all(1 <= label < classes for label in target["labels"].tolist())
    for x1, y1, x2, y2 in target["boxes"].tolist():
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    if masks:
        assert (target["masks"].dtype, target["masks"].shape) == (torch.uint8, (count, *size))
        for mask, box in zip(target["masks"], target["boxes"].tolist(), strict=True):
            rows, columns = mask.nonzero().unbind(1)
            assert set(mask.unique().tolist()) <= {0, 1}
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
