"""Small data sets in the genuine formats."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.datasets import CIFAR100, OxfordIIITPet

CIFAR_CLASSES = 100


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> Path:
    """CIFAR-100's pickled batches with made-up pixels, and their checksums where they are checked.

    Returns:
        the folder ``cifar-100-python``.
    """
    folder = root / CIFAR100.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("test", test)):
        fine = [number % CIFAR_CLASSES for number in range(count)]
        content = {
            "filenames": [f"image_{number}.png" for number in range(count)],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": fine,
            "coarse_labels": [label // 5 for label in fine],
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"thing {number:02d}" for number in range(CIFAR_CLASSES)]
    meta = {"fine_label_names": names, "coarse_label_names": names[:20]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))

    def checksum(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR100, "train_list", [["train", checksum("train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", checksum("test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": checksum("meta")})
    return folder


def write_image_folder(root: Path, classes: int = 3, train: int = 6, val: int = 2) -> Path:
    """``imagenet/{train,val}/<class>/*.JPEG``, each class of a colour of its own.

    Returns:
        the folder ``imagenet``.
    """
    rng = np.random.default_rng(0)
    top = root / "imagenet"
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = top / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 64, (40, 50, 3), dtype=np.uint8)
                pixels[..., label % 3] += 150
                Image.fromarray(pixels).save(folder / f"n{label:08d}_{number}.JPEG", quality=90)
    return top


# Breed, its number, cat (1) or dog (2), its number within the species: the set's first ones.
PET_BREEDS = (
    ("Abyssinian", 1, 1, 1),
    ("american_bulldog", 2, 2, 1),
    ("american_pit_bull_terrier", 3, 2, 2),
)
# Width and height, by the number of the image.
PET_SIZES = ((60, 40), (45, 64), (80, 56), (50, 50))
PET_HEADER = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\n"
PET_XML = """<annotation>
\t<folder>OXIIIT</folder>
\t<filename>{name}.jpg</filename>
\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
\t<segmented>0</segmented>
{objects}</annotation>
"""
PET_OBJECT = """\t<object>
\t\t<name>{species}</name>
\t\t<pose>Frontal</pose>
\t\t<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
\t\t<difficult>0</difficult>
\t</object>
"""


def pet_name(number: int) -> str:
    """Of an image that `pets` makes, as the lists have it."""
    return f"{PET_BREEDS[number % len(PET_BREEDS)][0]}_{number // len(PET_BREEDS) + 1}"


def pet_box(number: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the animal that `pets` draws; the left half is head."""
    width, height = PET_SIZES[number % len(PET_SIZES)]
    # Each stands a pixel further to the right than the one before, as long as there is room.
    along = number % (width // 2 - 4)
    return 4 + along, 7, width // 2 + along, height - 5


def pets(
    folder: Path,
    *,
    train: int = 6,
    test: int = 3,
    corrupt: int | None = None,
    without_xml: int | None = None,
    without_box: int | None = None,
    dot: int | None = None,
) -> Path:
    """``oxford-iiit-pet/{images,annotations}``: light animals on dark ground, `PET_BREEDS` in turn.

    The outline of an animal lacks the pixel at its box's left upper corner. As in the set
    itself, images of the split ``test`` have no XML.

    Args:
        folder: to make it in.
        train, test: images of each split; those of ``test`` are numbered after the others.
        corrupt: number of an image that is cut short.
        without_xml: number of one to train on without XML.
        without_box: number of one without an animal.
        dot: number of one with an animal of a single pixel, at 10, 12.

    Returns:
        the folder ``oxford-iiit-pet``.
    """
    top = folder / "oxford-iiit-pet"
    images, marks = top / "images", top / "annotations"
    for place in (images, marks / "trimaps", marks / "xmls"):
        place.mkdir(parents=True)
    lines = []
    for number in range(train + test):
        name, (_, breed, species, within) = pet_name(number), PET_BREEDS[number % len(PET_BREEDS)]
        lines.append(f"{name} {breed} {species} {within}\n")
        box = (10, 12, 11, 13) if number == dot else pet_box(number)
        drawn = [] if number == without_box else [box]
        size = PET_SIZES[number % len(PET_SIZES)]
        _draw_pet(images / f"{name}.jpg", size, drawn)
        _draw_trimap(marks / "trimaps" / f"{name}.png", size, drawn, palette=number % 2 == 0)
        if number == corrupt:
            cut_short(images / f"{name}.jpg")
        if number < train and number != without_xml:
            (marks / "xmls" / f"{name}.xml").write_text(_pet_xml(name, species, size, drawn))
    (marks / "list.txt").write_text(PET_HEADER + "".join(lines))
    (marks / "trainval.txt").write_text("".join(lines[:train]))
    (marks / "test.txt").write_text("".join(lines[train:]))
    return top


def pack_pets(top: Path, published: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put what `pets` made into its archives, with their checksums where they are checked.

    Args:
        top: what `pets` gave.
        published: the folder for the archives.
        address: that they are fetched from.
    """
    resources = []
    for part in ("images", "annotations"):
        archive = published / f"{part}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(top / part, part)
        resources.append(
            (f"{address}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest())
        )
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", tuple(resources))


def _draw_pet(path: Path, size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> None:
    pixels = np.full((size[1], size[0], 3), 30, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 220
    Image.fromarray(pixels).save(path, quality=95)


def _draw_trimap(
    path: Path, size: tuple[int, int], boxes: list[tuple[int, int, int, int]], palette: bool
) -> None:
    values = np.full((size[1], size[0]), 2, np.uint8)
    for x1, y1, x2, y2 in boxes:
        values[y1:y2, x1:x2] = 3
        values[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = 1
        if x2 - x1 > 1:
            values[y1, x1] = 2
    trimap = Image.fromarray(values)
    if palette:
        trimap.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    trimap.save(path)


def _pet_xml(
    name: str, species: int, size: tuple[int, int], boxes: list[tuple[int, int, int, int]]
) -> str:
    """Pixels are counted from 1 there, and the last ones belong to the box."""
    heads = [(x1 + 1, y1 + 1, max(x1 + 1, (x1 + x2) // 2), y2) for x1, y1, x2, y2 in boxes]
    objects = [PET_OBJECT.format(*head, species=("cat", "dog")[species - 1]) for head in heads]
    return PET_XML.format(name=name, width=size[0], height=size[1], objects="".join(objects))


def cut_short(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def publish_on_hub(folder: Path, repository: str, model: nn.Module) -> None:
    """Put weights where the Hugging Face hub's client keeps what it has fetched.

    Args:
        folder: the client's cache, ``HF_HUB_CACHE``.
        repository: such as ``timm/resnet50.a1_in1k``.
        model: whose weights.
    """
    revision = "0" * 40
    top = folder / f"models--{repository.replace('/', '--')}"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(revision)
    snapshot = top / "snapshots" / revision
    snapshot.mkdir(parents=True)
    save_file(model.state_dict(), snapshot / "model.safetensors")
