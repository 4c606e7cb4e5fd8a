"""A user's own files, on their way to every node. Loads no torch.

Ray's runtime environment carries a folder. Here it is filled: with the file of a model and the
Python files beside it, with weights and inputs, laid out as they are here, so that the same words
name the same things there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from layerbench.errors import UsageError
from layerbench.records.workload import ReadFile
from layerbench.units import bytes_
from layerbench.zoo._importing import import_root

MODEL_FILE = ".py:"
# Ray refuses more, and says so less clearly.
MOST_BYTES = 500 * 2**20
# What lies beside a model's file: code, of a project at most.
MOST_CODE = 20 * 2**20
# Name of what comes from the root of a file system.
ROOT = "root"
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
        self._sums: dict[Path, str] = {}
        self._elsewhere: dict[Path, Path] = {}
        self._bytes = 0

    @property
    def digest(self) -> str:
        """Checksum of all files and their places; empty where there are none."""
        if not self._sums:
            return ""
        pairs = sorted((place.as_posix(), sum) for place, sum in self._sums.items())
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def add(self, value: str) -> str:
        """Put in what a word of the command line names.

        Args:
            value: a model spec or a path; what names no file here is left as it is.

        Returns:
            the word as it has to be on a node.

        Raises:
            UsageError: the files are too large to send, or cannot be read.
        """
        file, colon, callable_ = value.partition(MODEL_FILE)
        said = Path(f"{file}.py" if colon else value)
        path = _found(said)
        if path is None:
            return value
        try:
            place = self._add_code(path.resolve()) if colon else self._add_file(path)
        except OSError as error:
            raise UsageError(
                f"cannot read {error.filename or path} to send it: {error.strerror or error}"
            ) from None
        if said.as_posix() not in (file.path for file in self.files):
            self.files.append(ReadFile(path=said.as_posix(), sha256=self._sums[place]))
        return f"{place.as_posix()}:{callable_}" if colon else place.as_posix()

    def _add_file(self, path: Path) -> Path:
        place = self._place_of(path.parent) / path.name
        self._copy(path, place)
        return place

    def _add_code(self, path: Path) -> Path:
        """A model's file, and the Python files beside it, or of its package, that it may import."""
        root = import_root(path)
        inside = path.relative_to(root)
        top = path.parent if len(inside.parts) == 1 else root / inside.parts[0]
        size = 0
        for other in _python_files(top):
            size += other.stat().st_size
            if size > MOST_CODE:
                raise UsageError(
                    f"beside {path} lie more than {bytes_(MOST_CODE)} of Python files: put the "
                    "model into a folder of its own, with what it imports"
                )
            self._copy(other, self._place_of(root) / other.relative_to(root))
        place = self._place_of(root) / inside
        self._copy(path, place)
        return place

    def _place_of(self, folder: Path) -> Path:
        """As it lies here, relative to this folder; one of elsewhere gets a name of its own."""
        here = Path(os.path.relpath(folder, Path.cwd()))
        if ".." not in here.parts:
            return here
        if folder not in self._elsewhere:
            taken = {*self._elsewhere.values()}
            names = (f"{folder.name or ROOT}{ending}" for ending in _endings())
            self._elsewhere[folder] = next(
                Path(name) for name in names if Path(name) not in taken and not Path(name).exists()
            )
        return self._elsewhere[folder]

    def _copy(self, source: Path, place: Path) -> None:
        if place in self._sums:
            return
        self._bytes += source.stat().st_size
        if self._bytes > MOST_BYTES:
            raise UsageError(
                f"{source} makes the files for the nodes {bytes_(self._bytes)}, and at most "
                f"{bytes_(MOST_BYTES)} can be sent: put it at one path on every node that this "
                "machine does not have"
            )
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        self._sums[place] = _sha256(target)


def _found(said: Path) -> Path | None:
    """The file that a word names, if it names one."""
    try:
        path = Path(os.path.abspath(said.expanduser()))
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        # Too long for a name, or of no user.
        return None


def _endings() -> Iterator[str]:
    """Of names that are taken: none, ``-2``, ``-3``."""
    yield ""
    yield from (f"-{number}" for number in itertools.count(2))


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_code(Path(place) / name))
        files = (Path(place) / name for name in sorted(names) if name.endswith(".py"))
        # An editor's lock of a file is a link to nothing.
        yield from (file for file in files if file.is_file())


def _is_code(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in LEFT_OUT
    return not hidden and not (folder / "pyvenv.cfg").exists()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
