"""The store in one file: SQLite, for one server. What its file may meet is looked for here."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from layerbench.service.web.database import (
    RESULT_BY_KEY,
    Database,
    P,
    StoreDamaged,
    StoreError,
    T,
    store_error,
    store_errors,
)
from layerbench.service.web.schema_revisions import bring_up
from layerbench.service.web.tables import Result, result_of

# How long a change waits for another process that writes; all requests wait with it.
BUSY_S = 0.2

_COLUMNS = tuple(Result.__dataclass_fields__)
_RESULT_SQL = str(RESULT_BY_KEY.compile(dialect=dialect(paramstyle="qmark")))

# Of the file and its journal: device and number, which tell one file from another; size and moment
# of the last change.
_Names = tuple[tuple[int, int], ...]
_Moments = tuple[tuple[int, int], ...]


@contextmanager
def _damage_explained() -> Iterator[None]:
    """Report a damaged file if SQLite's own message cannot be decoded.

    Raises:
        StoreError: in place of every error of the file.
    """
    try:
        with store_errors():
            yield
    except UnicodeDecodeError as error:
        raise StoreDamaged("the file is damaged") from error
    except sqlite3.Error as error:
        raise store_error(error) from error


class SqliteDatabase(Database):
    """One file. Used by one thread.

    Args:
        path: of the file, made with its folder if it is not there.

    Raises:
        StoreError, OSError: it cannot be opened.
    """

    shared = False
    _insert = staticmethod(insert)

    @_damage_explained()
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Each statement by itself, where no transaction is begun by hand: by `BEGIN IMMEDIATE`.
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: _connected(path),
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
        )
        try:
            self._connection = self._engine.connect()
            driver = self._connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            self._driver = driver
            _whole(self._connection)
            self._connection.exec_driver_sql("PRAGMA journal_mode = WAL").close()
            # A result that was told to somebody stays told, also when the machine loses power.
            self._connection.exec_driver_sql("PRAGMA synchronous = FULL")
            with self._transaction() as connection:
                bring_up(connection)
            self._files, self._size, self._last = self._seen()
            self._touched = False
            self._try()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        with contextlib.suppress(DBAPIError):
            self._engine.dispose()

    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """At once: it takes microseconds, and this thread alone has the file."""
        return method(*args, **kwargs)

    def _moment(self, connection: Connection) -> float:  # noqa: ARG002 - another engine asks it
        return time.time()

    def result(self, key: str) -> Result | None:
        """What is stored under a key; ``None`` also where the row cannot be read.

        Asked of the driver itself: SQLAlchemy takes 60 µs more, of the millisecond that a stored
        answer takes.
        """
        with _damage_explained():
            row = self._driver.execute(_RESULT_SQL, (key,)).fetchone()
        return None if row is None else result_of(dict(zip(_COLUMNS, row, strict=True)))

    def damage(self) -> str | None:
        """What is wrong with a page of the file, read whole; for a thread of its own."""
        engine = create_engine("sqlite://", creator=lambda: _connected(self._path))
        try:
            with _damage_explained(), engine.connect() as connection:
                _whole(connection)
        except StoreDamaged as error:
            return f"the store is damaged: {error}"
        except StoreError:
            # Held by another program, or no longer there: `complaint` says that.
            return None
        finally:
            engine.dispose()
        return None

    def _seen(self) -> tuple[_Names, int, _Moments]:
        """Which files its names stand for (SQLite goes on with those that it opened), and how."""
        files = [os.stat(f"{self._path}{ending}") for ending in ("", "-wal")]
        names = tuple((one.st_dev, one.st_ino) for one in files)
        return names, files[0].st_size, tuple((one.st_size, one.st_mtime_ns) for one in files)

    def touched(self) -> bool:
        """Whether another program has written into the files since this was asked."""
        with contextlib.suppress(OSError):
            self._touched |= self._seen()[2] != self._last
        touched, self._touched = self._touched, False
        return touched

    def _refuse_if_gone(self) -> None:
        """Look at the files before a change.

        Raises:
            StoreError: they are no longer those that were opened, or shorter.
        """
        try:
            names, size, moments = self._seen()
        except OSError:
            names, size = (), 0
        # A database grows, and never shrinks by itself.
        if names != self._files or size < self._size:
            raise StoreError(
                "its file was removed, replaced or shortened while the service ran: restart the "
                "service"
            )
        self._size = size
        self._touched |= moments != self._last

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _damage_explained():
            yield self._connection

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """A transaction: all of it or nothing."""
        self._refuse_if_gone()
        try:
            with _damage_explained(), self._transaction() as connection:
                yield connection
        finally:
            with contextlib.suppress(OSError):
                self._last = self._seen()[2]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.exec_driver_sql("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._driver.in_transaction:
                self._connection.exec_driver_sql("ROLLBACK")
            raise


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    # What was damaged is no text, perhaps; whoever reads it finds that it is no JSON either.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def _whole(connection: Connection) -> None:
    """Read every page.

    Raises:
        StoreDamaged: one is damaged, or the file is no database.
    """
    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        raise StoreDamaged(" ".join(str(verdict).split()))
