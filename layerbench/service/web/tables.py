"""The tables of the store, one schema for both engines, and what their rows hold. Loads no torch.

A job goes ``queued`` → ``running`` → ``done``, ``failed``, ``cancelled`` or ``interrupted``; one
that waits can be cancelled, or interrupted by the server's end, without running. Nothing leaves an
end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from sqlalchemy import REAL, Column, Double, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

from layerbench.service.protocol.questions import Question

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")

# Seconds since 1970. SQLite's strict tables know no other name for it.
MOMENT: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")

metadata = MetaData()
results = Table(
    "results",
    metadata,
    Column("key", Text, primary_key=True),
    Column("question", Text, nullable=False),
    Column("found", Text, nullable=False),
    Column("measured_at", MOMENT, nullable=False),
    Column("what", Text, nullable=False, server_default=Question.what),
    sqlite_strict=True,
)
jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("created_at", MOMENT, nullable=False),
    Column("started_at", MOMENT),
    Column("ended_at", MOMENT),
    Column("what", Text, nullable=False, server_default=Question.what),
    # Where it can run, as `server_targets` names it; and the server that runs it.
    Column("target", Text, nullable=False, server_default=""),
    Column("server", Text, nullable=False, server_default=""),
    sqlite_strict=True,
)
tries = Table(
    "tries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", MOMENT, nullable=False),
    sqlite_strict=True,
)
servers = Table(
    "servers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", MOMENT, nullable=False),
    Column("seen_at", MOMENT, nullable=False),
    sqlite_strict=True,
)
server_targets = Table(
    "server_targets",
    metadata,
    Column("server", Text, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Column("target", Text, primary_key=True),
    sqlite_strict=True,
)
Index("jobs_by_state", jobs.c.state)
Index("jobs_by_key", jobs.c.key)
# Of two that ask for the same at once, one finds the other's job.
Index(
    "jobs_open_once",
    jobs.c.key,
    unique=True,
    sqlite_where=jobs.c.state.in_(OPEN),
    postgresql_where=jobs.c.state.in_(OPEN),
)
Index("results_by_moment", results.c.what, results.c.measured_at.desc(), results.c.key)


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

    @property
    def open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN


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


def job_of(row: Mapping[str, Any]) -> Job | None:
    """A row of `jobs`; ``None`` for one that is damaged."""
    question = _object(row["question"])
    moments = [row[name] for name in ("created_at", "started_at", "ended_at")]
    if row["state"] not in STATES or not all(map(_is_moment, moments)):
        return None
    return Job(**{**row, "question": question or {}})


def result_of(row: Mapping[str, Any]) -> Result | None:
    """A row of `results`; ``None`` for one that is damaged."""
    question, content = _object(row["question"]), _object(row["found"])
    if question is None or content is None or not _is_moment(row["measured_at"]):
        return None
    return Result(**{**row, "question": question, "found": content})


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
