"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from layerbench.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AnyPath = str | os.PathLike[str]
"""What a caller may name a file or a folder with."""


def write_text(path: AnyPath, text: str) -> None:
    """Write a report whole, or leave the old one as it was; UTF-8, lines end in a line feed.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file whole, or leave the old one as it was.

    The data go to a temporary file beside it, to the disk, and under the final name in one
    step: a reader, or a process killed at any moment, sees the old file or the new one.
    Folders that are missing are made.

    Raises:
        OutputError: it cannot be written.
    """
    with replaced(path) as file:
        file.write(data)


@contextlib.contextmanager
def replaced(path: AnyPath) -> Iterator[BinaryIO]:
    """As `write_bytes`, for content written in pieces; the file is renamed at the end.

    A link stays, and what it leads to is replaced. A device or a pipe is written to: a file in its
    place would end it for everybody.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    try:
        place = Path(os.path.realpath(path))
        with path.open("wb") if _is_special(path) else _replacing(place) as file:
            yield file
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary name beside a path; the file is removed at the end unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """Whether there is something that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    with _beside(path) as temporary:
        with _new(temporary) as file:
            yield file
        os.replace(temporary, path)


@contextlib.contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk at the end."""
    # Exclusive, so that nothing else is overwritten; `open`, so that the umask holds.
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def check_writable(directory: AnyPath) -> None:
    """Find out before a long run whether reports can be written below a folder.

    Makes the folder and a file in it, and takes away again what was not there before.

    Raises:
        OutputError: nothing can be written there.
    """
    directory = Path(directory)
    made: list[Path] = []
    try:
        for folder in _missing(directory):
            folder.mkdir()
            made.append(folder)
        _probe(directory)
    except OSError as error:
        raise cannot_write(directory, error) from error
    finally:
        for folder in reversed(made):
            # Someone else may have begun to use it meanwhile: then it stays.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _missing(directory: Path) -> list[Path]:
    """The folders on the way to ``directory`` that do not exist, outermost first."""
    missing = []
    for folder in (directory, *directory.parents):
        if os.path.lexists(folder):
            break
        missing.append(folder)
    return missing[::-1]


def _probe(directory: Path) -> None:
    probe = directory / f".{secrets.token_hex(4)}.tmp"
    with probe.open("xb"):
        pass
    probe.unlink()


def cannot_write(path: Path, error: OSError, new: Sequence[Path] = ()) -> OutputError:
    """The error of a file that the system would not take, with its reason."""
    reason = error.strerror or str(error)
    rest = f"; only {', '.join(map(str, new))} are of this run" if new else ""
    return OutputError(f"cannot write {path}: {reason}{rest}; choose another folder with --out")


def write_all(files: Sequence[tuple[AnyPath, bytes]]) -> None:
    """Write several files that belong together: all are there, or all are as they were.

    All lie on the disk beside their places before the first takes its own. Only where the file
    system then refuses a place that it has shown to be writable, some are new and others old.

    Raises:
        OutputError: they cannot be written; the message says which are old where not all are.
    """
    done: list[Path] = []
    paths = [Path(path) for path, _ in files]
    with contextlib.ExitStack() as waiting:
        try:
            temporaries = [waiting.enter_context(_beside(path)) for path in paths]
            for temporary, (_, data) in zip(temporaries, files, strict=True):
                with _new(temporary) as file:
                    file.write(data)
            for temporary, path in zip(temporaries, paths, strict=True):
                os.replace(temporary, path)
                done.append(path)
        except OSError as error:
            raise cannot_write(paths[len(done)], error, done) from error


def arrays_file(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """What lies in a compressed ``.npz``."""
    import numpy as np  # readers of records need none

    buffer = io.BytesIO()
    # numpy's stub takes the arrays' names for its option allow_pickle
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()
