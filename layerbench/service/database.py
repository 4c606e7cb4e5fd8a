"""Jobs and results in SQLite. Every change is one transaction: what is half-written is not there.

A job goes ``queued`` → ``running`` → ``done``, ``failed``, ``cancelled`` or ``interrupted``; one
that waits can be cancelled, or interrupted by the server's end, without running. Nothing leaves an
end.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, question TEXT NOT NULL, found TEXT NOT NULL, measured_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, question TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL, started_at REAL, ended_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS tries (id INTEGER PRIMARY KEY, at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
"""
# How long a change waits for another process that writes; all requests wait with it.
BUSY_S = 0.2
# Jobs that ended longer ago are forgotten.
KEPT_S = 30 * 86400.0


@dataclass(frozen=True)
class Job:
    """One measurement that was asked for.

    Attributes:
        id: random.
        key: what its result is stored under.
        question: what it measures.
        state, reason: how far it is, and why it ended as it did.
        created_at, started_at, ended_at: seconds since 1970.
    """

    id: str
    key: str
    question: dict[str, Any]
    state: State
    reason: str
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class Result:
    """What a measurement found; ``measured_at`` in seconds since 1970."""

    key: str
    question: dict[str, Any]
    found: dict[str, Any]
    measured_at: float


class Database:
    """One file. Used by one thread.

    Args:
        path: of the file, made with its folder if it is not there.

    Raises:
        sqlite3.Error, OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A result that was told to somebody stays told, also when the machine loses power.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def writable(self) -> bool:
        """Whether a change can be made now: one is."""
        try:
            with self._change() as connection:
                connection.execute("INSERT OR REPLACE INTO tries VALUES (1, ?)", (time.time(),))
        except sqlite3.Error:
            return False
        return True

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

    def add(self, key: str, question: dict[str, Any]) -> Job:
        """A new job, queued."""
        job = Job(uuid.uuid4().hex, key, question, "queued", "", time.time(), None, None)
        with self._change() as connection:
            connection.execute(
                "INSERT INTO jobs (id, key, question, state, created_at) VALUES (?, ?, ?, ?, ?)",
                (job.id, key, json.dumps(question), job.state, job.created_at),
            )
        return job

    def start(self, id: str) -> bool:
        """Let a queued job run; ``False`` if it is no longer queued."""
        return self._move(id, "running", ("queued",), started_at=time.time())

    def end(self, id: str, state: State, reason: str = "") -> bool:
        """End an open job; ``False`` if it has ended before."""
        return self._move(id, state, OPEN, ended_at=time.time(), reason=reason)

    def finish(self, id: str, found: dict[str, Any]) -> bool:
        """End a running job with its result: both, or neither."""
        now = time.time()
        with self._change() as connection:
            moved = connection.execute(
                "UPDATE jobs SET state = 'done', ended_at = ? WHERE id = ? AND state = 'running'",
                (now, id),
            ).rowcount
            if moved:
                connection.execute(
                    "INSERT OR REPLACE INTO results (key, question, found, measured_at) "
                    "SELECT key, question, ?, ? FROM jobs WHERE id = ?",
                    (json.dumps(found), now, id),
                )
        return bool(moved)

    def job(self, id: str) -> Job | None:
        """The job of a number."""
        row = self._connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if row is None else _job(row)

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

    def result(self, key: str) -> Result | None:
        """What is stored under a key."""
        row = self._connection.execute("SELECT * FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else _result(row)

    def results(self, limit: int, offset: int = 0) -> list[Result]:
        """Results, the newest first; without profiles, of which each may have megabytes."""
        rows = self._connection.execute(
            "SELECT * FROM results WHERE json_type(question, '$.iterations') IS NULL "
            "ORDER BY measured_at DESC, key LIMIT ? OFFSET ?",
            (limit, offset),
        )
        return [_result(row) for row in rows]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _job(row: sqlite3.Row) -> Job:
    return Job(**{**dict(row), "question": json.loads(row["question"])})


def _result(row: sqlite3.Row) -> Result:
    fields = {name: json.loads(row[name]) for name in ("question", "found")}
    return Result(**{**dict(row), **fields})
