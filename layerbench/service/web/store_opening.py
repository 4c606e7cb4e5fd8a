"""The store of a server as it begins: whole, and a file no other server's. Loads no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from layerbench.errors import UsageError
from layerbench.service.web.database import Database, StoreError
from layerbench.service.web.schema_revisions import NewerStore
from layerbench.service.web.sqlite_database import SqliteDatabase
from layerbench.service.web.store_place import is_postgresql, shown, without_secrets

# The questions asked and what was found concern who runs the service, and nobody else.
MODE = 0o600


@contextlib.contextmanager
def opened(place: str | Path) -> Iterator[Database]:
    """A store, for as long as the block runs; a file is held against every other server.

    Args:
        place: a file as it was named, whatever links lead there, or a PostgreSQL database's
            address.

    Raises:
        UsageError: another server has it, or it cannot be read or written; one line.
    """
    if is_postgresql(place):
        database = _reached(str(place))
        try:
            yield database
        finally:
            database.close()
        return
    lock, file = _begun(Path(place))
    try:
        yield file
    finally:
        file.close()
        lock.release()


def _reached(url: str) -> Database:
    try:
        from layerbench.service.web.postgresql_database import PostgresqlDatabase
    except ImportError:
        raise UsageError(
            'a PostgreSQL database takes psycopg: pip install "layerbench[postgresql]"'
        ) from None
    try:
        return PostgresqlDatabase(url)
    except NewerStore as error:
        raise UsageError(f"{shown(url)}: {error}; {_NEWER}") from None
    except StoreError as error:
        raise UsageError(
            f"the database {shown(url)} cannot be used: {without_secrets(str(error), url)}; see "
            "that it runs and lets this user make tables, or take another --database"
        ) from None


def _begun(path: Path) -> tuple[FileLock, SqliteDatabase]:
    try:
        whole = path.resolve()
        _refuse_what_is_no_file(path, whole)
        lock = _locked(whole)
        try:
            _make_file(path, whole)
            return lock, SqliteDatabase(whole)
        except BaseException:
            lock.release()
            raise
    except Timeout:
        raise UsageError(
            f"another server works with {path}: take another --database, and one worker"
        ) from None
    except NewerStore as error:
        raise UsageError(f"{path}: {error}; {_NEWER}") from None
    except StoreError as error:
        raise UsageError(f"{path} cannot be used as the store: {error}; {_HINT}") from None
    except (OSError, RuntimeError) as error:
        # A link that leads to itself is a RuntimeError.
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be used as the store: {reason}; {_HINT}") from None


_HINT = "take another --database, or mend or remove this one"
_NEWER = "upgrade layerbench, or take another --database"


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
