"""The store of a server as it begins: whole, and no other server's. Loads no torch."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from layerbench.errors import UsageError
from layerbench.service.web.database import Database

# The questions asked and what was found concern who runs the service, and nobody else.
MODE = 0o600


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Database]:
    """The store in a file, held against every other server for as long as the block runs.

    Args:
        path: as it was named; whatever links lead there, the file itself is held.

    Raises:
        UsageError: another server has it, or it cannot be read or written; one line.
    """
    lock, database = _begun(path)
    try:
        yield database
    finally:
        database.close()
        lock.release()


def _begun(path: Path) -> tuple[FileLock, Database]:
    try:
        whole = path.resolve()
        _refuse_what_is_no_file(path, whole)
        lock = _locked(whole)
        try:
            _make_file(path, whole)
            return lock, Database(whole)
        except BaseException:
            lock.release()
            raise
    except Timeout:
        raise UsageError(
            f"another server works with {path}: take another --database, and one worker"
        ) from None
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be used as the store: {error}; {_HINT}") from None
    except (OSError, RuntimeError) as error:
        # A link that leads to itself is a RuntimeError.
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be used as the store: {reason}; {_HINT}") from None


_HINT = "take another --database, or mend or remove this one"


def _refuse_what_is_no_file(path: Path, whole: Path) -> None:
    if whole.is_dir():
        raise UsageError(f"{path} is a folder: name a file with --database")
    if whole.exists() and not whole.is_file():
        raise UsageError(f"{path} is not a regular file: name one with --database")


def _make_file(path: Path, whole: Path) -> None:
    # SQLite's journals take the mode of the file.
    os.close(os.open(whole, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE))
    if whole.stat().st_nlink > 1:
        # Each name has a journal of its own: two servers would damage it.
        raise UsageError(f"{path} has further names (hard links): copy it, and name the copy")


def _locked(whole: Path) -> FileLock:
    """A second server would take the first one's jobs for interrupted.

    Raises:
        filelock.Timeout: there is one.
        OSError: the folder takes no file.
    """
    whole.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(whole.with_name(f"{whole.name}.lock"), timeout=0, mode=MODE)
    try:
        lock.acquire()
    except Timeout:
        # filelock takes a file that it cannot make, as below /proc, for one that is held.
        os.close(os.open(lock.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE))
        raise
    return lock
