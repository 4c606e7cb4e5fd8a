"""Files that are part of what runs: their checksums, and what may be read of them.

Nothing in a file is run when it is read. Importing this loads no torch.
"""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from layerbench.errors import LayerbenchError, UsageError, typed_line
from layerbench.records.workload import ReadFile
from layerbench.text import one_line

Held = TypeVar("Held")

_BLOCK = 2**20
# What PyTorch says that a pickle asks for, besides tensors and plain data.
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+)")


def read(path: str | Path, kinds: tuple[str, ...], what: str) -> ReadFile:
    """The file as a record names it.

    Args:
        path: as the user wrote it.
        kinds: the endings that there may be.
        what: the option that names it.

    Raises:
        UsageError: there is no such file, it cannot be read, or it has another ending.
    """
    place = Path(path).expanduser()
    _check_is_file(place)
    if place.suffix.lower() not in kinds:
        raise UsageError(f"{what} takes {', '.join(kinds)}, not {place.name}")
    return ReadFile(path=str(path), sha256=_checksum(place))


def opened(file: ReadFile) -> Path:
    """Where the file lies, if it is still what the workload says.

    Raises:
        UsageError: it is gone, or has changed.
    """
    place = Path(file.path).expanduser()
    if _checksum(place) != file.sha256:
        raise UsageError(f"{file.path} has changed: its SHA-256 was {file.sha256}")
    return place


def _check_is_file(place: Path) -> None:
    if place.is_dir():
        raise UsageError(f"{place} is a folder: name the file in it")
    if not place.exists():
        raise UsageError(f"there is no file {place}")
    if not place.is_file():
        raise UsageError(f"{place} is no regular file")


def _checksum(place: Path) -> str:
    _check_is_file(place)
    try:
        state = place.stat()
        return _checksum_of(place.resolve(), state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UsageError(f"cannot read {place}: {error.strerror}") from error


@functools.lru_cache(maxsize=64)
def _checksum_of(place: Path, changed_ns: int, size: int) -> str:
    del changed_ns, size  # another file has other ones
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def damaged(name: str, what: str) -> Iterator[None]:
    """Say in one line what whatever is raised inside says of a file's content.

    Args:
        name: of the file.
        what: it should be.

    Raises:
        UsageError: the file is no such one, or damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except LayerbenchError:
            raise
        except Exception as error:  # whatever damaged bytes make a reader raise
            said = one_line(typed_line(error))
            raise UsageError(f"{name} is not {what}, or is damaged: {said}") from error


def check_archive(place: Path) -> None:
    """Compare each part of a zip archive with its checksum; PyTorch does not.

    Raises:
        ValueError: something in it is not as it was written.
        zipfile.BadZipFile: it is no archive, or not all of it is there.
    """
    with zipfile.ZipFile(place) as archive:
        part = archive.testzip()
    if part is not None:
        raise ValueError(f"{part} in it is not as it was written: its checksum is another")


def saved_by_torch(name: str, load: Callable[[], Held]) -> Held:
    """What a reader gives that allows tensors and plain data alone.

    Args:
        name: of the file.
        load: the reader.

    Raises:
        UsageError: a pickle in the file names something else. It was not run.
    """
    import pickle

    try:
        return load()
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        raise UsageError(
            f"{name} holds more than tensors and plain data ({found[1]}), and is refused; "
            "nothing in it was run: save tensors alone, such as model.state_dict()"
        ) from error


def plain_content(place: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The tensors, on the CPU, and plain data that ``torch.save`` wrote.

    Raises:
        UsageError: it is no such file, is damaged, or holds anything else.
    """
    import torch

    with damaged(place.name, "a file that torch.save wrote"):
        archive = zipfile.is_zipfile(place)
        if archive:
            check_archive(place)
        return saved_by_torch(
            place.name,
            lambda: torch.load(place, map_location="cpu", weights_only=True, mmap=archive),
        )
