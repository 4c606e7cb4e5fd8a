"""The store in PostgreSQL, for several servers. Loads no torch."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from socket import SHUT_RDWR, socket
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.rows import DictRow, dict_row
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import TimeoutError as NoConnection

from layerbench.service.web.database import (
    RESULT_BY_KEY,
    Database,
    Heard,
    Message,
    P,
    StoreError,
    T,
    store_error,
    store_errors,
)
from layerbench.service.web.schema_revisions import bring_up
from layerbench.service.web.tables import Result, result_of

# Connections of a server, and threads that wait for them; one more hears what others tell.
CONNECTIONS = 5
# So long a request waits for the database, and a statement takes at most.
CALL_S = 10.0
AGAIN_S = 1.0
CHANNEL = "layerbench"
# Of PostgreSQL's advisory locks, those of this program.
ADDS, CHANGES_SCHEMA = 0x1A7E_0001, 0x1A7E_0002
# A host that is no longer there is noticed within some seconds.
OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "layerbench",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_LIMITS = (
    f"SET statement_timeout = {CALL_S * 1e3:.0f}; SET lock_timeout = {CALL_S * 500:.0f}; "
    f"SET idle_in_transaction_session_timeout = {CALL_S * 3e3:.0f}"
)
_NOW = text("SELECT extract(epoch FROM clock_timestamp())::double precision")
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_LOCK = text("SELECT pg_advisory_xact_lock(:number)")


class PostgresqlDatabase(Database):
    """One database, which other servers may have, too. Its methods may be called in any thread.

    Args:
        url: as libpq takes it.

    Raises:
        StoreError: it cannot be reached.
        NewerStore: its tables are of a later version.
    """

    shared = True
    _insert = staticmethod(insert)

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: WeakSet[psycopg.Connection[Any]] = WeakSet()
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connected,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CALL_S,
        )
        # Of one statement, which needs no transaction around it.
        self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._found = str(RESULT_BY_KEY.compile(self._engine))
        self._threads = ThreadPoolExecutor(CONNECTIONS, "database")
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._away_until = 0.0
        self._reader: psycopg.AsyncConnection[DictRow] | None = None
        try:
            with self._change() as connection:
                # Two servers that start at once make the tables once; that may take its time.
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(_LOCK, {"number": CHANGES_SCHEMA})
                bring_up(connection)
            self._try()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._url, autocommit=True, **OPTIONS)
        connection.execute(_LIMITS)
        connection.autocommit = False
        self._made.add(connection)
        return connection

    def close(self) -> None:
        """Give the connections back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()
        # What still waits for an answer may do so for ever, and the process with it.
        for connection in self._made:
            with (
                suppress(psycopg.Error, OSError),
                socket(fileno=os.dup(connection.fileno())) as one,
            ):
                one.shutdown(SHUT_RDWR)
        self._drop(self._reader)

    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread: a database that is slow or away holds up nothing else.

        Raises:
            StoreError: it does not answer in time.
        """
        asked = partial(method, *args, **kwargs)
        # What waits for a thread waits for others, and not for the database.
        async with self._turns:
            if time.monotonic() < self._away_until:
                raise _late()
            try:
                running = asyncio.get_running_loop().run_in_executor(self._threads, asked)
                return await asyncio.wait_for(running, CALL_S)
            except (asyncio.TimeoutError, NoConnection):
                # Nor do those wait as long, one after the other, who wait behind this one.
                self._away_until = time.monotonic() + AGAIN_S
                raise _late() from None

    async def look_up(self, key: str) -> Result | None:
        """As `result`, on a connection of the event loop's own.

        A thread and SQLAlchemy take 0.25 ms more, of the 1.5 ms that a stored answer takes.

        Raises:
            StoreError: the database cannot be read, or does not answer in time.
        """
        # A connection that went away while nobody asked is noticed by the next who does.
        for last in (self._reader is None, True):
            reader = None
            try:
                reader = await asyncio.wait_for(self._connected_reader(), CALL_S)
                row = await asyncio.wait_for(self._row(reader, key), CALL_S)
                return None if row is None else result_of(row)
            except psycopg.Error as error:
                self._drop(reader)
                if last:
                    raise store_error(error) from error
            except asyncio.TimeoutError:
                self._drop(reader)
                raise _late() from None
        return None

    async def _row(self, reader: psycopg.AsyncConnection[DictRow], key: str) -> DictRow | None:
        cursor = await reader.execute(self._found, {"key": key})
        return await cursor.fetchone()

    async def _connected_reader(self) -> psycopg.AsyncConnection[DictRow]:
        if self._reader is None:
            reader = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, row_factory=dict_row, **OPTIONS
            )
            await reader.execute(_LIMITS)
            # Another request may have been quicker.
            if self._reader is None:
                self._reader = reader
            else:
                await reader.close()
        return self._reader

    def _drop(self, reader: psycopg.AsyncConnection[DictRow] | None) -> None:
        if reader is not None:
            reader.pgconn.finish()
        if self._reader is reader:
            self._reader = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with store_errors(), self._reads.connect() as connection:
            yield connection

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        with store_errors(), self._engine.begin() as connection:
            yield connection

    def _moment(self, connection: Connection) -> float:
        return float(connection.scalar(_NOW) or 0.0)

    def _one_adds(self, connection: Connection) -> None:
        connection.execute(_LOCK, {"number": ADDS})

    def _tell(self, connection: Connection, *messages: Message) -> None:
        for message in messages:
            connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": json.dumps(message)})

    async def listen(self, heard: Heard) -> None:
        """Hear what is told, for as long as this runs, on a connection of its own."""
        while True:
            # Where it cannot be heard, servers look: with each sign of life.
            with suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, **OPTIONS
                )
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    async for note in connection.notifies():
                        # Other programs may say something on the channel, too.
                        with suppress(ValueError, KeyError, TypeError):
                            heard(json.loads(note.payload))
            await asyncio.sleep(AGAIN_S)


def _late() -> StoreError:
    return StoreError(f"the database did not answer in {CALL_S:g} s")
