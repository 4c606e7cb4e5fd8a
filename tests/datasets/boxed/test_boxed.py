"""Data sets with boxes: known boxes and masks, and what is said of files that are not as said."""

from __future__ import annotations

import functools
import pickle
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layerbench import datasets, registry
from layerbench.datasets import boxed
from layerbench.datasets.boxed import _pets
from layerbench.errors import DataError, UsageError
from layerbench.training.batches import Samples
from tests.support.boxed import check_target, opened
from tests.support.small_data import PET_SIZES, cut_short, pack_pets, pet_box, pet_name, pets

every_set = pytest.mark.parametrize("name", boxed.names())
DOT = [10.0, 12.0, 11.0, 13.0]


def of(name, root, **asked):
    """Any of the data sets, small."""
    if name == "pets":
        pets(root)
    return opened(
        root, name, **({"samples": 6, "size": (60, 80)} if name == "synthetic" else {}), **asked
    )


def unmirrored(images, index):
    """An image to train on as it lies there; half of the seeds do."""
    return next(item for item, mirrored in readings(images, index) if not mirrored)


def readings(images, index):
    """The image by several seeds, each with whether it was mirrored."""
    found = []
    for seed in range(12):
        torch.manual_seed(seed)
        mirrored = bool(torch.rand(()) < 0.5)
        torch.manual_seed(seed)
        found.append((images[index], mirrored))
    assert {mirrored for _, mirrored in found} == {True, False}
    return found


def boxes_of(item):
    return item[1]["boxes"].tolist()


# Any data set with boxes.


def test_the_names():
    assert boxed.names() == ("pets", "synthetic")
    assert "boxed" not in datasets.names()
    with pytest.raises(UsageError, match=r"no data set with boxes 'pet' \(did you mean pets\?\)"):
        boxed.get("pet")


def test_finding_them_loads_no_torch():
    code = (
        "import sys; from layerbench.datasets import boxed\n"
        "print([boxed.get(name).name for name in boxed.names()], 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["['pets',", "'synthetic']", "False"]


def test_a_package_or_a_helper_among_data_sets_is_none(tmp_path, monkeypatch):
    package = tmp_path / "sets_of_a_test"
    (package / "inner").mkdir(parents=True)
    for file, name in (("one.py", "first"), ("_two.py", "second"), ("inner/__init__.py", "third")):
        text = f"from types import SimpleNamespace\nSOURCE = SimpleNamespace(name={name!r})\n"
        (package / file).write_text(text)
    (package / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    place = ("sets_of_a_test", [str(package)], "SOURCE", "layerbench.no_such_group")
    sources = registry.registered(*place, packages=False)
    assert [source.name for source in sources] == ["first"]


@every_set
@pytest.mark.parametrize("masks", [False, True])
def test_what_every_set_gives(name, masks, tmp_path):
    splits = of(name, tmp_path, masks=masks)
    assert splits.classes[0] == "background"
    assert len(set(splits.classes)) == len(splits.classes)
    assert len(splits.train) > len(splits.val) > 0
    for images, file in zip((splits.train, splits.val), splits.files, strict=True):
        assert len({file(index) for index in range(len(images))}) == len(images)
        for index in range(len(images)):
            image, target = images[index]
            assert (image.dtype, image.shape[0]) == (torch.float32, 3)
            assert 0 <= float(image.min()) < float(image.max()) <= 1
            check_target(target, image.shape[1:], len(splits.classes), masks)
        with pytest.raises(IndexError):
            images[len(images)]


@every_set
def test_both_halves_share_no_image(name, tmp_path):
    splits = of(name, tmp_path)
    validated = [splits.val[index][0] for index in range(len(splits.val))]
    for index in range(len(splits.train)):
        for (image, _), _ in readings(splits.train, index):
            assert not any(torch.equal(image, other) for other in validated)


@every_set
def test_what_is_trained_on_is_mirrored_half_of_the_time_with_its_boxes_and_masks(name, tmp_path):
    splits = of(name, tmp_path, masks=True)
    plain, target = unmirrored(splits.train, 1)
    width = plain.shape[-1]
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    expected = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    assert not torch.equal(expected, target["boxes"])
    for (image, found), mirrored in readings(splits.train, 1):
        assert torch.equal(image, plain.flip(-1) if mirrored else plain)
        assert torch.equal(found["boxes"], expected if mirrored else target["boxes"])
        assert torch.equal(found["labels"], target["labels"])
        assert torch.equal(
            found["masks"], target["masks"].flip(-1) if mirrored else target["masks"]
        )


@every_set
def test_what_is_validated_on_is_never_mirrored(name, tmp_path):
    images = of(name, tmp_path).val
    first, target = images[0]
    for (image, found), _ in readings(images, 0):
        assert torch.equal(image, first)
        assert torch.equal(found["boxes"], target["boxes"])


@every_set
def test_another_process_can_be_given_the_set(name, tmp_path):
    splits = of(name, tmp_path)
    again = pickle.loads(pickle.dumps(splits))
    assert torch.equal(again.val[0][0], splits.val[0][0])
    assert again.files[1](1) == splits.files[1](1)


# Oxford-IIIT Pet.


@pytest.mark.parametrize("boxes", ["trimap", "xml"])
def test_boxes_of_pets_are_where_the_animals_are(tmp_path, boxes):
    pets(tmp_path)
    splits = opened(tmp_path, boxes=boxes)
    assert (len(splits.train), len(splits.val)) == (6, 3 if boxes == "trimap" else 0)
    for number in range(6):
        image, target = unmirrored(splits.train, number)
        width, height = PET_SIZES[number % 4]
        assert image.shape == (3, height, width)
        x1, y1, x2, y2 = pet_box(number)
        right = x2 if boxes == "trimap" else (x1 + x2) // 2
        assert target["boxes"].tolist() == [[x1, y1, right, y2]]
        assert target["labels"].tolist() == [number % 3 + 1]
    for (image, target), _ in readings(splits.train, 4):
        x1, y1, x2, y2 = (int(edge) for edge in target["boxes"][0])
        assert float(image[:, y1:y2, x1:x2].min()) > 0.7  # light on dark
        assert float(image.mean()) < 0.5
    if boxes == "trimap":
        assert boxes_of(splits.val[0]) == [list(map(float, pet_box(6)))]


def test_masks_of_pets_are_their_outlines(tmp_path):
    pets(tmp_path)
    images = opened(tmp_path, masks=True).val
    for number in (6, 7, 8):  # trimaps with a palette, and grey ones
        mask = images[number - 6][1]["masks"]
        x1, y1, x2, y2 = pet_box(number)
        width, height = PET_SIZES[number % 4]
        expected = torch.zeros(1, height, width, dtype=torch.uint8)
        expected[:, y1:y2, x1:x2] = 1
        expected[0, y1, x1] = 0
        assert torch.equal(mask, expected)


def test_classes_of_pets(tmp_path):
    pets(tmp_path)
    breeds = opened(tmp_path)
    assert breeds.classes == [
        "background",
        "Abyssinian",
        "American Bulldog",
        "American Pit Bull Terrier",
    ]
    species = opened(tmp_path, classes="species")
    assert species.classes == ["background", "Cat", "Dog"]
    for splits, labels in ((breeds, [1, 2, 3]), (species, [1, 2, 2])):
        assert [int(splits.val[index][1]["labels"]) for index in range(3)] == labels
    assert breeds.files[0](3) == str(tmp_path / "oxford-iiit-pet/images/Abyssinian_2.jpg")


def test_a_breed_without_images_keeps_its_number(tmp_path):
    lists = pets(tmp_path) / "annotations"
    for split in ("trainval", "test"):
        lines = (lists / f"{split}.txt").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("american_bulldog")]
        (lists / f"{split}.txt").write_text("".join(kept))
    splits = opened(tmp_path)
    assert splits.classes == ["background", "Abyssinian", "breed 2", "American Pit Bull Terrier"]
    assert [int(splits.val[index][1]["labels"]) for index in range(2)] == [1, 3]


@pytest.mark.parametrize("boxes", ["trimap", "xml"])
def test_an_image_without_a_box_and_one_of_a_single_pixel(tmp_path, boxes):
    pets(tmp_path, without_box=1, dot=2)
    masks = boxes == "trimap"
    images = opened(tmp_path, boxes=boxes, masks=masks).train
    for (_, target), _ in readings(images, 1):
        assert (target["boxes"].shape, target["labels"].shape) == ((0, 4), (0,))
        assert not masks or target["masks"].shape == (0, 64, 45)
    _, target = unmirrored(images, 2)
    assert target["boxes"].tolist() == [DOT]
    assert not masks or target["masks"].sum() == target["masks"][0, 12, 10] == 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_of_every_kind_become_rgb(tmp_path, mode):
    top = pets(tmp_path)
    path = top / "images" / f"{pet_name(6)}.jpg"
    image = Image.open(path).convert(mode)
    image.save(path, "JPEG" if mode in ("L", "CMYK") else "PNG")
    read, target = opened(tmp_path).val[0]
    x1, y1, x2, y2 = (int(edge) for edge in target["boxes"][0])
    assert read.shape == (3, 56, 80)
    assert read[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean() == pytest.approx(220 / 255, abs=0.02)


def test_masks_around_heads_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="mark heads and have no masks"):
        opened(tmp_path, boxes="xml", masks=True)


def test_pets_to_validate_on_by_xml_are_those_that_have_one(tmp_path):
    xmls = pets(tmp_path, without_xml=2) / "annotations" / "xmls"
    lacking, nothing = opened(tmp_path, boxes="xml").notes
    assert lacking == "1 of 6 images to train on have no XML and cannot be read"
    assert nothing == "no image of the test split has an XML: there is nothing to validate on"
    assert opened(tmp_path).notes == ()

    shutil.copy(xmls / f"{pet_name(0)}.xml", xmls / f"{pet_name(7)}.xml")
    splits = opened(tmp_path, boxes="xml")
    x1, y1, x2, y2 = pet_box(0)
    assert len(splits.val) == 1
    assert boxes_of(splits.val[0]) == [[x1, y1, (x1 + x2) // 2, y2]]
    assert splits.val[0][0].shape[1:] == PET_SIZES[7 % 4][::-1]
    assert splits.val[0][1]["labels"].tolist() == [2]
    assert splits.files[1](0).endswith(f"{pet_name(7)}.jpg")
    assert splits.notes[1].startswith("validated on the 1 of 3 images")


def test_images_that_cannot_be_read_are_named_by_the_loader(tmp_path):
    top = pets(tmp_path, corrupt=1, without_xml=2)
    (top / "images" / f"{pet_name(3)}.jpg").unlink()
    splits = opened(tmp_path, boxes="xml")
    samples = Samples(splits.train, splits.files[0], seed=0)
    said = [samples[1, number] for number in range(4)]
    assert not isinstance(said[0], str)
    assert f"{pet_name(1)}.jpg (OSError: " in said[1]
    assert f"{pet_name(2)}.jpg (FileNotFoundError: missing annotation: there is no " in said[2]
    assert f"{pet_name(3)}.jpg (FileNotFoundError: " in said[3]


def test_a_trimap_that_is_missing_or_cut_short(tmp_path):
    trimaps = pets(tmp_path) / "annotations" / "trimaps"
    (trimaps / f"{pet_name(6)}.png").unlink()
    cut_short(trimaps / f"{pet_name(7)}.png")
    images = opened(tmp_path).val
    with pytest.raises(FileNotFoundError, match=rf"{pet_name(6)}\.png"):
        images[0]
    with pytest.raises((OSError, SyntaxError)):
        images[1]
    assert boxes_of(images[2]) == [list(map(float, pet_box(8)))]


def test_a_trimap_of_another_size(tmp_path):
    top = pets(tmp_path)
    path = top / "annotations" / "trimaps" / f"{pet_name(6)}.png"
    Image.fromarray(np.ones((80, 56), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"80x56 pixels .*, its trimap 56x80$"):
        opened(tmp_path).val[0]


@pytest.mark.parametrize("shape", [(56, 80), (56, 80, 3)])
def test_a_trimap_that_is_none(tmp_path, shape):
    path = pets(tmp_path) / "annotations" / "trimaps" / f"{pet_name(6)}.png"
    values = np.ones(shape, np.uint8)
    values[5, 5] = 1 if len(shape) == 3 else 0
    Image.fromarray(values).save(path)
    with pytest.raises(ValueError, match="other values than 1, 2 and 3"):
        opened(tmp_path).val[0]


def voc(*edges):
    sides = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{side}>{edge}</{side}>" for side, edge in zip(sides, edges, strict=False))
    return f"<annotation><object><bndbox>{inner}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation><object>", r"is not readable XML: no element found"),
        ("", r"is not readable XML"),
        (voc(5, 5, 20), "has an object without ymax"),
        ("<annotation><object/></annotation>", "has an object without xmin"),
        (voc(5, "five", 20, 20), "has 'five' for ymin, which is not a number"),
        (voc(5, 5, "nan", 20), "has 'nan' for xmax, which is not a number"),
        (voc(5, 5, 20, "inf"), "has 'inf' for ymax, which is not a number"),
        (voc(5, 5, "", 20), "has '' for xmax, which is not a number"),
        (voc(20, 5, 5, 20), "has a box from 20, 5 back to 5, 20"),
        (voc(5, 20, 20, 5), "has a box from 5, 20 back to 20, 5"),
        (voc(61, 5, 70, 20), "has a box outside the image of 60x40 pixels"),
        (voc(-9, 5, 0, 20), "has a box outside the image of 60x40 pixels"),
    ],
)
def test_xml_that_is_not_as_it_should_be(tmp_path, text, said):
    path = pets(tmp_path) / "annotations" / "xmls" / f"{pet_name(0)}.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{pet_name(0)}\.xml {said}"):
        opened(tmp_path, boxes="xml").train[0]


@pytest.mark.parametrize(
    ("edges", "box"),
    [
        ((1, 1, 60, 40), [0, 0, 60, 40]),  # all of the image
        ((60, 40, 60, 40), [59, 39, 60, 40]),  # its last pixel
        ((0, 3, 61, 4), [0, 2, 60, 4]),  # a little beyond it
        ((2.5, 3, 4.5, 4), [1.5, 2, 4.5, 4]),
    ],
)
def test_xml_counts_pixels_from_one_and_the_last_ones_in(tmp_path, edges, box):
    path = pets(tmp_path) / "annotations" / "xmls" / f"{pet_name(0)}.xml"
    path.write_text(voc(*edges))
    assert boxes_of(unmirrored(opened(tmp_path, boxes="xml").train, 0)) == [box]


def test_several_objects_in_one_xml(tmp_path):
    path = pets(tmp_path) / "annotations" / "xmls" / f"{pet_name(1)}.xml"
    one = voc(1, 1, 2, 3).removesuffix("</annotation>")
    path.write_text(one + voc(4, 5, 6, 7).removeprefix("<annotation>"))
    _, target = unmirrored(opened(tmp_path, boxes="xml").train, 1)
    assert target["boxes"].tolist() == [[0, 0, 2, 3], [3, 4, 6, 7]]
    assert target["labels"].tolist() == [2, 2]


# Where the set is missing or incomplete.


def test_without_pets_the_error_says_what_to_put_where(tmp_path):
    with pytest.raises(
        DataError, match=r"oxford-iiit-pet must hold the folders images and .*images\.tar\.gz and"
    ):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The archives of `pets` with all its files, in a folder that they are fetched from."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        pack_pets(pets(tmp_path / "packed"), folder, address, monkeypatch)
        yield folder
        server.shutdown()


@pytest.mark.parametrize("download", [False, True])
def test_pets_in_their_archives(tmp_path, published, download):
    top = tmp_path / "oxford-iiit-pet"
    if not download:
        shutil.copytree(published, top)
    images = opened(tmp_path, download=download).val
    assert boxes_of(images[0]) == [list(map(float, pet_box(6)))]
    # Unpacked once: from then on the folders do.
    for archive in [*top.glob("*.tar.gz"), *published.iterdir()]:
        archive.unlink()
    assert len(opened(tmp_path, download=download).train) == 6
    assert sorted(path.name for path in top.iterdir()) == ["annotations", "images"]


def test_one_archive_of_pets_is_missing_or_damaged(tmp_path, published):
    top = pets(tmp_path)
    shutil.rmtree(top / "annotations")
    with pytest.raises(DataError, match=r"Oxford-IIIT Pet is missing: .*--download fetches them"):
        opened(tmp_path)
    shutil.copy(published / "annotations.tar.gz", top)
    cut_short(top / "annotations.tar.gz")
    with pytest.raises(DataError, match=r"annotations.tar.gz is damaged or incomplete; --download"):
        opened(tmp_path)
    # Fetching takes it again.
    assert len(opened(tmp_path, download=True).train) == 6


@pytest.mark.parametrize(
    ("damage", "said"),
    [(cut_short, "File not found or corrupted"), (Path.unlink, "HTTP Error 404")],
)
def test_pets_that_cannot_be_fetched(tmp_path, published, damage, said):
    damage(published / "images.tar.gz")
    with pytest.raises(DataError, match=rf"could not be fetched into .*oxford-iiit-pet: {said}"):
        opened(tmp_path, download=True)


def test_an_unpacking_that_was_ended_is_done_again(tmp_path, published, monkeypatch):
    def ended(archive, folder):
        (Path(folder) / "images").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_pets, "extract_archive", ended)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, download=True)
    assert len(opened(tmp_path, download=True).train) == 6


@pytest.mark.parametrize(
    ("missing", "boxes", "said"),
    [
        ("test.txt", "trimap", r"incomplete: .*test\.txt.*--download fetches it again"),
        ("trimaps", "trimap", r"trimaps is missing; it comes with annotations\.tar\.gz"),
        ("xmls", "xml", r"xmls is missing; it comes with annotations\.tar\.gz"),
    ],
)
def test_annotations_of_pets_that_are_not_whole(tmp_path, missing, boxes, said):
    place = pets(tmp_path) / "annotations" / missing
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    with pytest.raises(DataError, match=said):
        opened(tmp_path, boxes=boxes)


@pytest.mark.parametrize(
    ("line", "asked", "said"),
    [
        ("Abyssinian_1 1 1\n", {}, r"cannot read .*annotations/trainval\.txt: not enough values"),
        ("Abyssinian_1 one 1 1\n", {}, r"cannot read .*annotations/trainval\.txt: .*'one'"),
        ("Abyssinian_1 0 1 1\n", {}, "have images of a breed 0, which does not exist"),
        ("Abyssinian_1 1 3 1\n", {"classes": "species"}, "of a species 3, which does not exist"),
        ("Abyssinian_1 1 1 1\nBengal_1 1 1 1\n", {}, "give two breeds the same number"),
        ("", {}, r"annotations/trainval\.txt lists no image"),
        ("Bengal_1 1 1 1\n", {"boxes": "xml"}, r"has no XML of an image in trainval\.txt"),
    ],
)
def test_lists_of_pets_that_are_not_as_they_should_be(tmp_path, line, asked, said):
    (pets(tmp_path) / "annotations" / "trainval.txt").write_text(line)
    with pytest.raises(DataError, match=said):
        opened(tmp_path, **asked)


# Images made up.


# Detectors.
