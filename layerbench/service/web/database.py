"""Jobs and results in SQLite. Every change is one transaction, whole or absent.

A job goes ``queued`` → ``running`` → ``done``, ``failed``, ``cancelled`` or ``interrupted``; one
that waits can be cancelled, or interrupted by the server's end, without running. Nothing leaves an
end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from layerbench.service.protocol.questions import Question

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, question TEXT NOT NULL, found TEXT NOT NULL, measured_at REAL NOT NULL,
    what TEXT NOT NULL DEFAULT 'measurement'
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, question TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL, started_at REAL, ended_at REAL,
    what TEXT NOT NULL DEFAULT 'measurement'
) STRICT;
CREATE TABLE IF NOT EXISTS tries (id INTEGER PRIMARY KEY, at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
"""
# Fails where a table of that name is another program's.
_LOOK = """
SELECT key, question, found, measured_at FROM results LIMIT 0;
SELECT id, key, question, state, reason, created_at, started_at, ended_at FROM jobs LIMIT 0;
"""
# Of a store that was made before there was the column: a profile's question alone has iterations.
# Not AND: SQLite may look into what is no JSON all the same.
_KIND = """
ALTER TABLE {table} ADD COLUMN what TEXT NOT NULL DEFAULT 'measurement';
UPDATE {table} SET what = CASE WHEN NOT json_valid(question) THEN 'damaged'
    WHEN json_type(question, '$.iterations') IS NOT NULL THEN 'profile' ELSE 'measurement' END;
"""
_COLUMNS = "SELECT name FROM pragma_table_info(?)"
# How long a change waits for another process that writes; all requests wait with it.
BUSY_S = 0.2
# Jobs that ended longer ago are forgotten.
KEPT_S = 30 * 86400.0

# Of the file and its journal: device and number, which tell one file from another; size and moment
# of the last change.
_Names = tuple[tuple[int, int], ...]
_Moments = tuple[tuple[int, int], ...]


@contextmanager
def _damage_explained() -> Iterator[None]:
    """Report a damaged file if SQLite's own message cannot be decoded."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("the file is damaged") from error


@dataclass(frozen=True)
class Job:
    """One measurement that was asked for.

    Attributes:
        id: random.
        key: what its result is stored under.
        question: what it measures.
        state, reason: how far it is, and why it ended as it did.
        created_at, started_at, ended_at: seconds since 1970.
        what: the kind of question that it is.
    """

    id: str
    key: str
    question: dict[str, Any]
    state: State
    reason: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    what: str


@dataclass(frozen=True)
class Result:
    """What a measurement found; ``measured_at`` in seconds since 1970, ``what`` as of the job.

    Two with one key and moment are the same.
    """

    key: str
    question: dict[str, Any] = field(compare=False)
    found: dict[str, Any] = field(compare=False)
    measured_at: float
    what: str = Question.what


class Database:
    """One file. Used by one thread.

    Args:
        path: of the file, made with its folder if it is not there.

    Raises:
        sqlite3.Error, OSError: it cannot be opened.
    """

    @_damage_explained()
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = _connected(path)
        try:
            _whole(self._connection)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A result that was told to somebody stays told, also when the machine loses power.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA + _LOOK)
            self._add_kinds()
            self._files, self._size, self._last = self._seen()
            self._touched = False
            self._try()
        except BaseException:
            self._connection.close()
            raise

    def _add_kinds(self) -> None:
        """Bring a store of an earlier version into the present form: all of it or nothing."""
        old = [
            table
            for table in ("jobs", "results")
            if "what" not in {row["name"] for row in self._connection.execute(_COLUMNS, (table,))}
        ]
        if old:
            steps = "".join(_KIND.format(table=table) for table in old)
            self._connection.executescript(f"BEGIN IMMEDIATE; {steps} COMMIT;")

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def complaint(self) -> str | None:
        """Why no change can be made now; ``None`` where one can be: one is."""
        try:
            self._try()
        except sqlite3.Error as error:
            return f"the store cannot be written: {error}"
        return None

    def damage(self) -> str | None:
        """What is wrong with a page of the file, read whole; for a thread of its own."""
        try:
            with _damage_explained(), contextlib.closing(_connected(self._path)) as connection:
                _whole(connection)
        except sqlite3.OperationalError:
            # Held by another program, or no longer there: `complaint` says that.
            return None
        except sqlite3.Error as error:
            return f"the store is damaged: {error}"
        return None

    def _try(self) -> None:
        with self._change() as connection:
            connection.execute("INSERT OR REPLACE INTO tries VALUES (1, ?)", (time.time(),))

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
            sqlite3.OperationalError: they are no longer those that were opened, or shorter.
        """
        try:
            names, size, moments = self._seen()
        except OSError:
            names, size = (), 0
        # A database grows, and never shrinks by itself.
        if names != self._files or size < self._size:
            raise sqlite3.OperationalError(
                "its file was removed, replaced or shortened while the service ran: restart the "
                "service"
            )
        self._size = size
        self._touched |= moments != self._last

    # --- jobs ------------------------------------------------------------------------------

    def interrupt_open(self, reason: str) -> int:
        """End every job that waits or runs as ``interrupted``; gives how many there were."""
        with self._change() as connection:
            return connection.execute(
                "UPDATE jobs SET state = 'interrupted', ended_at = ?, reason = ? "
                "WHERE state IN ('queued', 'running')",
                (time.time(), reason),
            ).rowcount

    def forget_old(self) -> int:
        """Remove jobs that ended long ago; gives how many there were. Results stay."""
        with self._change() as connection:
            return connection.execute(
                "DELETE FROM jobs WHERE ended_at < ?", (time.time() - KEPT_S,)
            ).rowcount

    def add(self, key: str, question: dict[str, Any], what: str = Question.what) -> Job:
        """A new job, queued."""
        job = Job(uuid.uuid4().hex, key, question, "queued", "", time.time(), None, None, what)
        with self._change() as connection:
            connection.execute(
                "INSERT INTO jobs (id, key, question, state, created_at, what) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, key, json.dumps(question), job.state, job.created_at, what),
            )
        return job

    def start(self, id: str) -> bool:
        """Let a queued job run; ``False`` if it is no longer queued."""
        return self._move(id, "running", ("queued",), started_at=time.time())

    def end(self, id: str, state: State, reason: str = "") -> bool:
        """End an open job; ``False`` if it has ended before."""
        return self._move(id, state, OPEN, ended_at=time.time(), reason=reason)

    def finish(self, id: str, content: dict[str, Any]) -> bool:
        """End a running job with its result: both, or neither."""
        now = time.time()
        with self._change() as connection:
            moved = connection.execute(
                "UPDATE jobs SET state = 'done', ended_at = ? WHERE id = ? AND state = 'running'",
                (now, id),
            ).rowcount
            if moved:
                connection.execute(
                    "INSERT OR REPLACE INTO results (key, question, found, measured_at, what) "
                    "SELECT key, question, ?, ?, what FROM jobs WHERE id = ?",
                    (json.dumps(content), now, id),
                )
        return bool(moved)

    @_damage_explained()
    def job(self, id: str) -> Job | None:
        """The job of a number."""
        row = self._connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if row is None else _job(row)

    @_damage_explained()
    def count(self, *states: State) -> int:
        """Jobs in these states."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT count(*) FROM jobs WHERE state IN ({marks})"
        return int(self._connection.execute(query, states).fetchone()[0])

    def _move(self, id: str, state: State, before: tuple[State, ...], **changed: object) -> bool:
        names = ", ".join(f"{name} = ?" for name in ("state", *changed))
        marks = ", ".join("?" * len(before))
        query = f"UPDATE jobs SET {names} WHERE id = ? AND state IN ({marks})"
        with self._change() as connection:
            return bool(connection.execute(query, (state, *changed.values(), id, *before)).rowcount)

    # --- results ---------------------------------------------------------------------------

    @_damage_explained()
    def result(self, key: str) -> Result | None:
        """What is stored under a key; ``None`` also where the row cannot be read."""
        row = self._connection.execute("SELECT * FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else _result(row)

    def keep(self, key: str, question: dict[str, Any], found: dict[str, Any], what: str) -> Result:
        """Store what no job found, in place of what was there."""
        result = Result(key, question, found, time.time(), what)
        with self._change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO results (key, question, found, measured_at, what) "
                "VALUES (?, ?, ?, ?, ?)",
                (key, json.dumps(question), json.dumps(found), result.measured_at, what),
            )
        return result

    @_damage_explained()
    def results(self, limit: int, offset: int = 0) -> list[Result]:
        """What was measured, newest first; without profiles, which may take megabytes each."""
        rows = self._connection.execute(
            "SELECT * FROM results WHERE what = ? ORDER BY measured_at DESC, key LIMIT ? OFFSET ?",
            (Question.what, limit, offset),
        )
        return [result for row in rows if (result := _result(row)) is not None]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        self._refuse_if_gone()
        with _damage_explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                with contextlib.suppress(OSError):
                    self._last = self._seen()[2]


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    # What was damaged is no text, perhaps; whoever reads it finds that it is no JSON either.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def _whole(connection: sqlite3.Connection) -> None:
    """Read every page.

    Raises:
        sqlite3.DatabaseError: one is damaged, or the file is no database.
    """
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(str(verdict).split()))


def _job(row: sqlite3.Row) -> Job | None:
    """``None`` for one that is damaged."""
    question = _object(row["question"])
    moments = [row[name] for name in ("created_at", "started_at", "ended_at")]
    if row["state"] not in STATES or not all(map(_is_moment, moments)):
        return None
    return Job(**{**dict(row), "question": question or {}})


def _result(row: sqlite3.Row) -> Result | None:
    """``None`` for one that is damaged."""
    question, content = _object(row["question"]), _object(row["found"])
    if question is None or content is None or not _is_moment(row["measured_at"]):
        return None
    return Result(**{**dict(row), "question": question, "found": content})


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_moment(seconds: float | None) -> bool:
    """Whether it is a date that can be written."""
    try:
        if seconds is not None:
            datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return False
    return True
