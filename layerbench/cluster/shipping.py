"""A user's own files, on their way to every node. Loads no torch.

Ray's runtime environment carries a folder. Here it is filled: with the file of a model and the
Python files beside it, with weights and inputs, laid out as they are here, so that the same words
name the same things there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerbench.errors import UsageError
from layerbench.records.workload import ReadFile
from layerbench.units import bytes_

MODEL_FILE = ".py:"
# Ray refuses more, and says so less clearly.
MOST_BYTES = 500 * 2**20
# What lies beside a model's file: code, of a project at most.
MOST_CODE = 20 * 2**20
LEFT_OUT = ("__pycache__", "node_modules", "site-packages")


class Parcel:
    """The files that go to every node.

    Args:
        folder: an empty one, that Ray will send.

    Attributes:
        folder: as above.
        files: what was put in by name, with checksums.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[ReadFile] = []
        self._bytes = 0

    def add(self, value: str) -> str:
        """Put in what a word of the command line names.

        Args:
            value: a model spec or a path; what names no file here is left as it is.

        Returns:
            the word as it has to be on a node.

        Raises:
            UsageError: the files are too large to send.
        """
        file, colon, callable_ = value.partition(MODEL_FILE)
        path = Path(f"{file}.py" if colon else value)
        if not value or not path.is_file():
            return value
        place = self._place(path)
        if colon:
            self._add_code(path, place)
        self._copy(path, place)
        self.files.append(ReadFile(path=path.as_posix(), sha256=_sha256(path)))
        named = place.as_posix()
        return f"{named}:{callable_}" if colon else named

    def _place(self, path: Path) -> Path:
        """Relative to this folder as here; a file from elsewhere by its name."""
        here = Path(os.path.relpath(path.resolve(), Path.cwd().resolve()))
        return Path(path.name) if ".." in here.parts else here

    def _add_code(self, path: Path, place: Path) -> None:
        """The Python files beside a model's file and below: it may import them."""
        size = 0
        for other in _python_files(path.resolve().parent):
            size += other.stat().st_size
            if size > MOST_CODE:
                raise UsageError(
                    f"beside {path} lie more than {bytes_(MOST_CODE)} of Python files: put the "
                    "model into a folder of its own, with what it imports"
                )
            self._copy(other, place.parent / other.relative_to(path.resolve().parent))

    def _copy(self, source: Path, place: Path) -> None:
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return
        self._bytes += source.stat().st_size
        if self._bytes > MOST_BYTES:
            raise UsageError(
                f"{source} makes the files for the nodes {bytes_(self._bytes)}, and at most "
                f"{bytes_(MOST_BYTES)} can be sent: put it at one path on every node that this "
                "machine does not have"
            )
        shutil.copyfile(source, target)


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_code(Path(place) / name))
        yield from (Path(place) / name for name in sorted(names) if name.endswith(".py"))


def _is_code(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in LEFT_OUT
    return not hidden and not (folder / "pyvenv.cfg").exists()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(files: Iterable[ReadFile]) -> list[str]:
    """Of files, for the key of a task."""
    return [file.sha256 for file in files]
