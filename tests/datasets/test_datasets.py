"""Data sets in their genuine formats, and what is said where they are not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from layerbench import datasets
from layerbench.datasets import DatasetOptions, digits
from layerbench.errors import DataError, UsageError
from tests.support.small_data import cut_short, write_cifar100, write_image_folder


def test_the_names():
    assert datasets.names() == ("cifar100", "digits", "imagenet", "synthetic")
    with pytest.raises(UsageError, match="did you mean cifar100"):
        datasets.get("cifar10")


def test_cifar100_in_its_python_form(tmp_path, monkeypatch):
    write_cifar100(tmp_path, monkeypatch, train=200, test=100)
    splits = datasets.get("cifar100").open(DatasetOptions(tmp_path, (48, 64)))
    assert (len(splits.train), len(splits.val), len(splits.classes)) == (200, 100, 100)
    assert splits.classes[7] == "thing 07"
    image, label = splits.val[42]
    assert (image.shape, image.dtype, label) == ((3, 48, 64), torch.float32, 42)
    again, _ = splits.val[42]
    assert torch.equal(image, again)
    assert splits.files[0](3) == "train image 3"


@pytest.mark.parametrize("damage", ["missing", "cut", "checksum"])
def test_cifar100_that_is_not_whole(tmp_path, monkeypatch, damage):
    folder = write_cifar100(tmp_path, monkeypatch, train=100, test=100)
    if damage == "missing":
        (folder / "train").unlink()
    elif damage == "cut":
        cut_short(folder / "test")
    else:
        (folder / "meta").write_bytes((folder / "meta").read_bytes() + b" ")
    with pytest.raises(DataError, match=r"is damaged or incomplete.*--download fetches them"):
        datasets.get("cifar100").open(DatasetOptions(tmp_path, (32, 32)))


def test_without_data_the_error_says_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match="cifar-100-python must hold the files meta, train and"):
        datasets.get("cifar100").open(DatasetOptions(tmp_path, (32, 32)))
    with pytest.raises(DataError, match=r"imagenet/train/<class>/ and .*ILSVRC2012_img_val.tar"):
        datasets.get("imagenet").open(DatasetOptions(tmp_path, (32, 32)))


def test_a_folder_for_each_class(tmp_path):
    top = write_image_folder(tmp_path, classes=3, train=4, val=2)
    for root in (tmp_path, top):  # the folder itself will do too
        splits = datasets.get("imagenet").open(DatasetOptions(root, (32, 24)))
        assert (len(splits.train), len(splits.val)) == (12, 6)
        assert list(splits.classes) == ["n00000000", "n00000001", "n00000002"]
    image, label = splits.val[2]
    assert (tuple(image.shape), label) == ((3, 32, 24), 1)
    # The class's colour is the brightest channel, whatever mean and deviation are taken out.
    assert int(image.mean(dim=(1, 2)).argmax()) == 1
    assert splits.files[1](2).endswith("val/n00000001/n00000001_0.JPEG")


def test_classes_that_differ_between_the_halves(tmp_path):
    top = write_image_folder(tmp_path)
    (top / "val" / "n00000002").rename(top / "val" / "other")
    with pytest.raises(DataError, match="differ: n00000002, other"):
        datasets.get("imagenet").open(DatasetOptions(tmp_path, (32, 32)))


def test_a_class_without_images(tmp_path):
    top = write_image_folder(tmp_path)
    (top / "train" / "empty").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*train: .*empty"):
        datasets.get("imagenet").open(DatasetOptions(tmp_path, (32, 32)))


def test_digits_are_those_that_scikit_learn_gives(monkeypatch):
    from sklearn.datasets import load_digits

    read = digits._rows()
    images, labels = load_digits(return_X_y=True)
    assert (read == np.column_stack([images, labels])).all()
    # A version that keeps them elsewhere is asked itself.
    monkeypatch.setattr(digits, "FILE", Path("elsewhere"))
    assert (digits._rows() == read).all()


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install scikit-learn"):
        datasets.get("digits").open(DatasetOptions(root=None, size=(8, 8)))  # type: ignore[arg-type]


def test_digits_are_split_by_the_seed():
    first, again, other = (
        datasets.get("digits").open(DatasetOptions(root=None, size=(8, 8), seed=seed))  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert len(first.train) + len(first.val) == 1797
    assert torch.equal(first.train[0][0], again.train[0][0])
    assert not all(torch.equal(first.train[i][0], other.train[i][0]) for i in range(10))
    image, label = first.train[0]
    assert image.shape == (3, 8, 8)
    assert 0 <= label < 10
    values = torch.stack([first.train[index][0] for index in range(100)])
    assert (float(values.min()), float(values.max())) == (-1, 1)


def test_made_up_images_are_the_same_by_number_and_differ_between_the_halves():
    first, again = (
        datasets.get("synthetic").open(DatasetOptions(root=None, size=(16, 16), samples=40))  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert (len(first.train), len(first.val)) == (40, 10)
    assert torch.equal(first.train[3][0], again.train[3][0])
    assert first.train[3][1] == 3
    seen = {first.train[i][0].sum().item() for i in range(40)}
    seen |= {first.val[i][0].sum().item() for i in range(10)}
    assert len(seen) == 50
    with pytest.raises(IndexError):
        first.val[10]
