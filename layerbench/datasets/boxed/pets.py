"""Oxford-IIIT Pet: about 7,400 photographs of cats and dogs of 37 breeds (Parkhi et al. 2012)."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from layerbench.datasets.boxed.source import BoxedDatasetOptions, BoxedSplits
from layerbench.errors import DataError, UsageError
from layerbench.text import one_line

FOLDER = "oxford-iiit-pet"
# Errors of fetching, unpacking and reading the lists.
DAMAGED = (
    OSError,
    HTTPException,
    RuntimeError,
    ValueError,
    EOFError,
    tarfile.TarError,
    zlib.error,
)


@dataclass(frozen=True)
class Pets:
    """``<root>/oxford-iiit-pet/{images,annotations}/``, or their two archives, by torchvision.

    The split ``trainval`` is trained on, and ``test`` validated on. Boxes from ``trimap`` are
    around whole animals, one an image. Boxes from ``xml`` are around heads; of ``test`` the set
    as published has none, and of ``trainval`` it lacks some.
    """

    name: str = "pets"

    def open(self, options: BoxedDatasetOptions) -> BoxedSplits:
        """Both halves; archives are unpacked the first time."""
        if options.masks and options.boxes == "xml":
            raise UsageError(
                "the XML files of Oxford-IIIT Pet mark heads and have no masks: take the boxes "
                "from trimap, or no masks"
            )
        from layerbench.datasets.boxed import _pets

        folder = options.root / FOLDER
        try:
            _pets.unpack(folder, options.download)
            return _pets.splits(folder, options)
        except DAMAGED as error:
            raise DataError(_unusable(folder, options.download, error)) from error


SOURCE = Pets()


def _unusable(folder: Path, tried: bool, error: Exception) -> str:
    reason = one_line(error)
    if tried and not (folder / "annotations").is_dir():
        return f"Oxford-IIIT Pet could not be fetched into {folder}: {reason}"
    return (
        f"Oxford-IIIT Pet is damaged or incomplete: {reason}; remove {folder}/annotations and "
        "--download fetches it again"
    )
