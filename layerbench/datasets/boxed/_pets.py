"""Oxford-IIIT Pet's files, by torchvision and PIL. Loads torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# The files come from an archive with a checksum: nobody has written them against the reader.
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import OxfordIIITPet
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from layerbench.datasets.boxed._tensors import Box, box_around, example, target
from layerbench.datasets.boxed.source import BACKGROUND, BoxedDatasetOptions, BoxedSplits, Target
from layerbench.datasets.source import FileNames
from layerbench.errors import DataError

# Of a pixel in a trimap.
PET, AROUND, BORDER = 1, 2, 3


def unpack(folder: Path, download: bool) -> None:
    """Make the folders ``images`` and ``annotations`` from their archives, where they are not.

    A folder appears whole or not at all. An interrupted unpacking is repeated.

    Args:
        folder: of the set.
        download: whether an archive that is not there, or damaged, may be fetched.

    Raises:
        DataError: an archive is not there, or damaged.
        OSError, RuntimeError, EOFError, tarfile.TarError: it cannot be fetched or unpacked.
    """
    for url, checksum in OxfordIIITPet._RESOURCES:
        archive = folder / url.rsplit("/", 1)[1]
        part = folder / archive.name.split(".")[0]
        if part.is_dir():
            continue
        if download:
            # Fetches nothing where the archive lies there whole.
            download_url(url, folder, archive.name, checksum)
        elif not archive.is_file():
            raise DataError(_missing(folder))
        elif not check_integrity(archive, checksum):
            raise DataError(f"{archive} is damaged or incomplete; --download fetches it again")
        with TemporaryDirectory(prefix="unpacking-", dir=folder) as fresh:
            extract_archive(archive, fresh)
            if not part.is_dir():  # another process of the same training may have been first
                (Path(fresh) / part.name).rename(part)


def splits(folder: Path, options: BoxedDatasetOptions) -> BoxedSplits:
    """Both halves of a set that is there.

    Raises:
        DataError: a list, or the annotations needed, are not there.
        OSError, ValueError: a list cannot be read.
    """
    train, val = (_listed(folder, split, options) for split in ("trainval", "test"))
    classes = [BACKGROUND, *_class_names((train, val), options)]
    notes: tuple[str, ...] = ()
    if options.boxes == "xml":
        val, notes = _with_xml(folder, train, val)
    return BoxedSplits(
        PetImages(train, options.masks, augmented=True),
        PetImages(val, options.masks, augmented=False),
        classes,
        (FileNames(train.images), FileNames(val.images)),
        notes,
    )


def xml_boxes(path: Path, size: tuple[int, int]) -> list[Box]:
    """The boxes of a PASCAL VOC file; empty if it has no object.

    Args:
        path: of the file.
        size: width and height of the image: no box reaches beyond.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no XML, or a box in it is not valid.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise FileNotFoundError(f"missing annotation: there is no {path}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{path} is not readable XML: {error}") from error
    return [_xml_box(element, path, size) for element in root.iter("object")]


def animal(trimap: Image.Image, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the animal is, its border included, ``[H, W]``.

    Args:
        trimap: of the three values.
        size: width and height of the image.

    Raises:
        ValueError: it is no trimap, or not one of this image.
    """
    if trimap.size != size:
        sizes = [f"{width}x{height}" for width, height in (size, trimap.size)]
        raise ValueError(f"the image has {sizes[0]} pixels (width x height), its trimap {sizes[1]}")
    values = np.asarray(trimap)  # of a palette: the numbers, not the colours
    inside: NDArray[np.bool_] = (values == PET) | (values == BORDER)
    if values.ndim != 2 or not (inside | (values == AROUND)).all():
        raise ValueError("the trimap has other values than 1, 2 and 3")
    return inside


@dataclass(frozen=True)
class _Half:
    """A split as its list has it.

    Attributes:
        data: image, category from 0 and, if boxes come from it, trimap.
        images: their files.
        xmls: the XML file of each image; ``None`` if boxes come from trimaps.
        chosen: numbers in `data`, one for each of `images`.
    """

    data: OxfordIIITPet
    images: Sequence[Path]
    xmls: Sequence[Path] | None
    chosen: Sequence[int]

    def only(self, kept: Sequence[int]) -> _Half:
        """Some of the images."""
        xmls = None if self.xmls is None else [self.xmls[number] for number in kept]
        images = [self.images[number] for number in kept]
        return _Half(self.data, images, xmls, [self.chosen[number] for number in kept])


class PetImages:
    """Images of a split with their animals.

    Args:
        half: of the set.
        masks: whether objects have masks.
        augmented: mirrored half of the time.
    """

    def __init__(self, half: _Half, masks: bool, *, augmented: bool) -> None:
        self._half = half
        self._masks = masks
        self._augmented = augmented

    def __len__(self) -> int:
        return len(self._half.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, labels = self._half.data[self._half.chosen[index]]
        if self._half.xmls is None:
            category, trimap = labels
            objects = self._outlined(animal(trimap, image.size), category + 1)
        else:
            boxes = xml_boxes(self._half.xmls[index], image.size)
            objects = target(boxes, [labels + 1] * len(boxes))
        return example(image, objects, augmented=self._augmented)

    def _outlined(self, inside: NDArray[np.bool_], label: int) -> Target:
        there = bool(inside.any())
        masks = inside[None][: int(there)] if self._masks else None
        return target([box_around(inside)], [label], masks) if there else target([], [], masks)


def _missing(folder: Path) -> str:
    return (
        f"Oxford-IIIT Pet is missing: {folder} must hold the folders images and annotations, or "
        "their archives images.tar.gz and annotations.tar.gz (from "
        "www.robots.ox.ac.uk/~vgg/data/pets); --download fetches them, and --data synthetic "
        "generates images"
    )


def _listed(folder: Path, split: str, options: BoxedDatasetOptions) -> _Half:
    kinds = ["category" if options.classes == "breed" else "binary-category"]
    if options.boxes == "trimap":
        kinds.append("segmentation")
    _require(folder / "annotations" / ("trimaps" if options.boxes == "trimap" else "xmls"))
    try:
        data = OxfordIIITPet(folder.parent, split=split, target_types=kinds)
    except ValueError as error:
        raise DataError(f"cannot read {folder}/annotations/{split}.txt: {error}") from error
    # torchvision gives files and categories by no public name without decoding every image.
    images: list[Path] = data._images
    if not images:
        raise DataError(f"{folder}/annotations/{split}.txt lists no image")
    xmls = None
    if options.boxes == "xml":
        xmls = [folder / "annotations" / "xmls" / f"{image.stem}.xml" for image in images]
    return _Half(data, images, xmls, range(len(images)))


def _require(annotations: Path) -> None:
    if not annotations.is_dir():
        raise DataError(
            f"Oxford-IIIT Pet is incomplete: {annotations} is missing; it comes with "
            f"annotations.tar.gz: remove {annotations.parent} and --download fetches it again"
        )


def _class_names(halves: Sequence[_Half], options: BoxedDatasetOptions) -> list[str]:
    """By category. A breed without a listed image has its number as a name."""
    named: dict[int, str] = {}
    if options.classes == "species":
        named.update(enumerate(halves[0].data.bin_classes))
        present = {category for half in halves for category in half.data._bin_labels}
    else:
        for half in halves:
            categories = sorted(set(half.data._labels))
            if len(categories) < len(half.data.classes):
                raise DataError("the lists of Oxford-IIIT Pet give two breeds the same number")
            named.update(zip(categories, half.data.classes, strict=True))
        present = {category for category in named if category < 0}
    if wrong := present - set(range(max(named) + 1)):
        raise DataError(
            f"the lists of Oxford-IIIT Pet have images of a {options.classes} {min(wrong) + 1}, "
            "which does not exist"
        )
    return [named.get(category, f"breed {category + 1}") for category in range(max(named) + 1)]


def _with_xml(folder: Path, train: _Half, val: _Half) -> tuple[_Half, tuple[str, ...]]:
    """The images to validate on, and notes on both halves."""
    there = {path.stem for path in (folder / "annotations" / "xmls").glob("*.xml")}
    trained, validated = (
        [number for number, image in enumerate(half.images) if image.stem in there]
        for half in (train, val)
    )
    if not trained:
        raise DataError(f"{folder}/annotations/xmls has no XML of an image in trainval.txt")
    notes = []
    if lacking := len(train.images) - len(trained):
        notes.append(
            f"{lacking} of {len(train.images)} images to train on have no XML and cannot be read"
        )
    if not validated:
        notes.append("no image of the test split has an XML: there is nothing to validate on")
    elif len(validated) < len(val.images):
        notes.append(
            f"validated on the {len(validated)} of {len(val.images)} images of the test split "
            "that have an XML"
        )
    return val.only(validated), tuple(notes)


def _xml_box(element: ElementTree.Element, path: Path, size: tuple[int, int]) -> Box:
    xmin, ymin, xmax, ymax = (
        _coordinate(element, side, path) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    if xmax < xmin or ymax < ymin:
        raise ValueError(f"{path} has a box from {xmin:g}, {ymin:g} back to {xmax:g}, {ymax:g}")
    # Pixels are counted from 1 there, and the last one belongs to the box. What was marked by
    # hand may reach a little beyond the image.
    width, height = size
    x1, y1, x2, y2 = max(xmin - 1, 0), max(ymin - 1, 0), min(xmax, width), min(ymax, height)
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"{path} has a box outside the image of {width}x{height} pixels")
    return x1, y1, x2, y2


def _coordinate(element: ElementTree.Element, side: str, path: Path) -> float:
    text = element.findtext(f"bndbox/{side}")
    if text is None:
        raise ValueError(f"{path} has an object without {side}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path} has {text.strip()!r} for {side}, which is not a number")
    return value
