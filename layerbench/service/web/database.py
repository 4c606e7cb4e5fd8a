"""Jobs and results in a database. Every change is one transaction, whole or absent.

What both engines do alike, in SQLAlchemy's Core. `sqlite_database` and `postgresql_database` have
what is their own.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, ParamSpec, TypeVar

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from layerbench.service.protocol.questions import Question
from layerbench.service.web.tables import (
    OPEN,
    Job,
    Result,
    State,
    job_of,
    jobs,
    result_of,
    results,
    server_targets,
    servers,
    tries,
)
from layerbench.text import encodable, one_line

P = ParamSpec("P")
T = TypeVar("T")
Message = dict[str, Any]
"""What servers with one database tell each other."""
Heard = Callable[[Message], object]
"""Takes a message."""

# Jobs that ended longer ago are forgotten.
KEPT_S = 30 * 86400.0
# So many in one change: each statement has its time.
FORGOTTEN_AT_ONCE = 10_000
DAMAGED = "store: the job is damaged"

_JOB = [jobs.c[name] for name in Job.__dataclass_fields__]
_RESULT = [results.c[name] for name in Result.__dataclass_fields__]
_QUEUED = jobs.c.state == "queued"
_RUNNING = jobs.c.state == "running"
_IS_OPEN = jobs.c.state.in_(OPEN)
# Statements that are asked often are made once: SQLAlchemy then knows them again at once.
_JOB_BY_ID = select(*_JOB).where(jobs.c.id == bindparam("id"))
RESULT_BY_KEY = select(*_RESULT).where(results.c.key == bindparam("key"))
_OPEN_BY_KEY = select(*_JOB).where(jobs.c.key == bindparam("key"), _IS_OPEN)
_DONE_AT = select(*_JOB).where(
    jobs.c.key == bindparam("key"), jobs.c.state == "done", jobs.c.ended_at == bindparam("at")
)
_COUNT = select(func.count()).where(jobs.c.state.in_(bindparam("states", expanding=True)))
# One that this server took and does not run: the answer was lost on its way.
_MINE = or_(
    _QUEUED & jobs.c.target.in_(bindparam("targets", expanding=True)),
    _RUNNING
    & (jobs.c.server == bindparam("server"))
    & jobs.c.id.not_in(bindparam("running", expanding=True)),
)
_NEXT = select(jobs.c.id).where(_MINE).order_by(jobs.c.state.desc(), jobs.c.created_at, jobs.c.id)
_TAKEN = _NEXT.limit(1).with_for_update(skip_locked=True)
_LATEST = (
    select(*_RESULT)
    .where(results.c.what == Question.what)
    .order_by(results.c.measured_at.desc(), results.c.key)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)


class StoreError(Exception):
    """The store cannot be read or written now; the message is one line."""


class StoreDamaged(StoreError):
    """Something in the store is damaged."""


class NoRoom(Exception):
    """As many jobs wait already as may."""


def store_error(error: BaseException | None) -> StoreError:
    """What a driver's error means, in one line."""
    # SQLite says "operational" of a file that is held, gone or full. Of PostgreSQL's errors none
    # is about a file that could be read through.
    damaged = isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.OperationalError)
    return (StoreDamaged if damaged else StoreError)(one_line(error))


@contextmanager
def store_errors() -> Iterator[None]:
    """Report what an engine raises in one line.

    Raises:
        StoreError: in place of SQLAlchemy's.
    """
    try:
        yield
    except DBAPIError as error:
        raise store_error(error.orig) from error


class Database(ABC):
    """Jobs and results of one server, or of several.

    Attributes:
        shared: whether other servers may have it, too.
    """

    shared: ClassVar[bool]
    # Of an engine: INSERT that may meet a row.
    _insert: ClassVar[Callable[..., Any]]

    @abstractmethod
    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One of the methods below, called from an event loop that it must not hold up."""

    async def look_up(self, key: str) -> Result | None:
        """`result`, called from an event loop: what a stored answer waits for."""
        return await self.call(self.result, key)

    @abstractmethod
    def close(self) -> None:
        """Give the database back."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]:
        """For a statement that changes nothing."""

    @abstractmethod
    def _change(self) -> AbstractContextManager[Connection]:
        """A transaction: all of it or nothing."""

    @abstractmethod
    def _moment(self, connection: Connection) -> float:
        """Seconds since 1970, by the one clock that all servers of the database go by."""

    def _one_adds(self, connection: Connection) -> None:  # noqa: ARG002 - of another engine
        """Let nobody else add a job until the transaction ends, where others could."""
        return

    def _tell(self, connection: Connection, *messages: Message) -> None:  # noqa: ARG002 - as above
        """Tell all servers of the database, once the transaction is whole, if there may be some."""
        return

    def _tell_state(self, connection: Connection, id: str, state: State, reason: str = "") -> None:
        self._tell(connection, {"job": id, "state": state, "reason": reason})

    async def listen(self, heard: Heard) -> None:  # noqa: ARG002 - as above
        """Hear what is told, for as long as this runs; an engine of one server tells nothing."""
        return

    def complaint(self) -> str | None:
        """Why no change can be made now; ``None`` where one can be: one is."""
        try:
            self._try()
        except StoreError as error:
            return f"the store cannot be written: {error}"
        return None

    def _try(self) -> None:
        with self._change() as connection:
            self._put(connection, tries, {"id": 1, "at": self._moment(connection)})

    def touched(self) -> bool:
        """Whether another program has written into the store's files since this was asked."""
        return False

    def damage(self) -> str | None:
        """What is wrong with a page of the store's files, read whole."""
        return None

    def _put(self, connection: Connection, table: Any, values: Mapping[str, Any]) -> None:  # noqa: ANN401 - a table
        """Write a row in place of the one with its key."""
        (key,) = table.primary_key.columns
        put = self._insert(table)
        others = {name: put.excluded[name] for name in values if name != key.name}
        connection.execute(
            put.on_conflict_do_update(index_elements=[key], set_=others), dict(values)
        )

    # --- jobs ------------------------------------------------------------------------------

    def interrupt_open(self, reason: str) -> int:
        """End every job that waits or runs as ``interrupted``; gives how many there were."""
        with self._change() as connection:
            return self._interrupt(connection, _IS_OPEN, reason)

    def _interrupt(self, connection: Connection, which: Any, reason: str) -> int:  # noqa: ANN401 - a condition
        # In one order: two servers may look at once.
        found = select(jobs.c.id).where(which).order_by(jobs.c.id).with_for_update()
        ids = connection.scalars(found).all()
        if ids:
            values = {"state": "interrupted", "reason": reason}
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(ids))
                .values(**values, ended_at=self._moment(connection))
            )
        for id in ids:
            self._tell_state(connection, id, "interrupted", reason)
        return len(ids)

    def forget_old(self) -> int:
        """Remove jobs that ended long ago; gives how many there were. Results stay."""
        count = 0
        while True:
            with self._change() as connection:
                old = jobs.c.ended_at < self._moment(connection) - KEPT_S
                some = select(jobs.c.id).where(old).limit(FORGOTTEN_AT_ONCE)
                gone = connection.execute(delete(jobs).where(jobs.c.id.in_(some))).rowcount
            count += gone
            if gone < FORGOTTEN_AT_ONCE:
                return count

    def add(
        self,
        key: str,
        question: Mapping[str, Any],
        what: str = Question.what,
        *,
        target: str = "",
        most: int | None = None,
        rejected: Result | None = None,
        anew: bool = True,
    ) -> Job:
        """The open job of a key, or a new one, queued.

        Args:
            key: what its result is stored under.
            question: what it measures.
            what: the kind of question.
            target: where it can run.
            most: jobs that may wait.
            rejected: what is stored under the key and is no answer.
            anew: take no other stored result either. Where it is not so, and there is one, the job
                that found it is given: it ended after its asker had looked.

        Raises:
            NoRoom: so many wait already.
        """
        with self._change() as connection:
            self._one_adds(connection)
            found = self._first_job(connection, _OPEN_BY_KEY, key=key)
            if found is None and not anew:
                found = self._just_done(connection, key, rejected)
            if found is not None:
                return found
            if most is not None and self._count(connection, "queued") >= most:
                raise NoRoom
            now = self._moment(connection)
            job = Job(uuid.uuid4().hex, key, dict(question), "queued", "", now, None, None, what)
            row = {name: getattr(job, name) for name in Job.__dataclass_fields__}
            row |= {"question": json.dumps(question), "target": target}
            connection.execute(insert(jobs), row)
            self._tell(connection, {"queue": True})
        return job

    def _just_done(self, connection: Connection, key: str, rejected: Result | None) -> Job | None:
        row = connection.execute(RESULT_BY_KEY, {"key": key}).mappings().first()
        stored = None if row is None else result_of({**row})
        if stored is None or stored == rejected:
            return None
        return self._first_job(connection, _DONE_AT, key=key, at=stored.measured_at)

    @staticmethod
    def _first_job(connection: Connection, query: Any, **values: object) -> Job | None:  # noqa: ANN401 - a SELECT
        row = connection.execute(query, values).mappings().first()
        return None if row is None else job_of({**row})

    def take(
        self, server: str = "", targets: Collection[str] = ("",), running: Collection[str] = ()
    ) -> Job | None:
        """Let the job run that has waited longest; ``None`` where none waits.

        Args:
            server: that runs it.
            targets: of jobs that it can run.
            running: jobs that it runs already.
        """
        values = {"server": server, "targets": sorted(targets), "running": list(running)}
        with self._reading() as connection:
            if connection.execute(_NEXT.limit(1), values).first() is None:
                return None
        with self._change() as connection:
            while (id := connection.scalars(_TAKEN, values).first()) is not None:
                now = self._moment(connection)
                moved = {"state": "running", "server": server, "started_at": now}
                this = update(jobs).where(jobs.c.id == id)
                connection.execute(this.values(**moved))
                job = self._first_job(connection, _JOB_BY_ID, id=id)
                if job is not None:
                    self._tell_state(connection, id, "running")
                    return job
                # It would be found again and again.
                connection.execute(this.values(state="failed", reason=DAMAGED, ended_at=now))
        return None

    def end(self, id: str, state: State, reason: str = "") -> bool:
        """End an open job; ``False`` if it has ended before."""
        # Neither engine stores half a character, and PostgreSQL no zero either.
        said = encodable(reason).replace("\0", "")
        with self._change() as connection:
            moved = connection.execute(
                update(jobs)
                .where(jobs.c.id == id, _IS_OPEN)
                .values(state=state, reason=said, ended_at=self._moment(connection))
            ).rowcount
            if moved:
                self._tell_state(connection, id, state, said)
        return bool(moved)

    def finish(self, id: str, content: Mapping[str, Any]) -> bool:
        """End a running job with its result: both, or neither."""
        with self._change() as connection:
            now = self._moment(connection)
            moved = connection.execute(
                update(jobs).where(jobs.c.id == id, _RUNNING).values(state="done", ended_at=now)
            ).rowcount
            if moved:
                asked = select(jobs.c.key, jobs.c.question, jobs.c.what).where(jobs.c.id == id)
                row = dict(connection.execute(asked).mappings().one())
                row |= {"found": json.dumps(content), "measured_at": now}
                self._put(connection, results, row)
                self._tell_state(connection, id, "done")
        return bool(moved)

    def job(self, id: str) -> Job | None:
        """The job of a number."""
        with self._reading() as connection:
            return self._first_job(connection, _JOB_BY_ID, id=id)

    def states(self, ids: Collection[str]) -> dict[str, tuple[State, str]]:
        """State and reason of jobs, as far as there are such."""
        asked = select(jobs.c.id, jobs.c.state, jobs.c.reason).where(jobs.c.id.in_(ids))
        with self._reading() as connection:
            return {id: (state, reason) for id, state, reason in connection.execute(asked)}

    def count(self, *states: State) -> int:
        """Jobs in these states."""
        with self._reading() as connection:
            return self._count(connection, *states)

    @staticmethod
    def _count(connection: Connection, *states: State) -> int:
        return int(connection.scalar(_COUNT, {"states": states}) or 0)

    def ahead(self) -> dict[str, int]:
        """Of each job that waits, the number of those that come first."""
        waiting = select(jobs.c.id).where(_QUEUED).order_by(jobs.c.created_at, jobs.c.id)
        with self._reading() as connection:
            first = self._count(connection, "running")
            return {id: number for number, id in enumerate(connection.scalars(waiting), first)}

    # --- results ---------------------------------------------------------------------------

    def result(self, key: str) -> Result | None:
        """What is stored under a key; ``None`` also where the row cannot be read."""
        with self._reading() as connection:
            row = connection.execute(RESULT_BY_KEY, {"key": key}).mappings().first()
        return None if row is None else result_of({**row})

    def keep(
        self, key: str, question: Mapping[str, Any], found: Mapping[str, Any], what: str
    ) -> Result:
        """Store what no job found, in place of what was there."""
        with self._change() as connection:
            result = Result(key, dict(question), dict(found), self._moment(connection), what)
            row = {
                "key": key,
                "question": json.dumps(question),
                "found": json.dumps(found),
                "measured_at": result.measured_at,
                "what": what,
            }
            self._put(connection, results, row)
        return result

    def results(self, limit: int, offset: int = 0) -> list[Result]:
        """What was measured, newest first; without profiles, which may take megabytes each."""
        with self._reading() as connection:
            rows = connection.execute(_LATEST, {"limit": limit, "offset": offset}).mappings().all()
        return [result for row in rows if (result := result_of({**row})) is not None]

    # --- servers ---------------------------------------------------------------------------

    def tell(self, messages: Sequence[Message]) -> None:
        """Tell all servers of the database."""
        with self._change() as connection:
            self._tell(connection, *messages)

    def beat(self, server: str, host: str, targets: Collection[str]) -> None:
        """Note that a server lives, and of which targets it runs jobs."""
        with self._change() as connection:
            now = self._moment(connection)
            seen = update(servers).where(servers.c.id == server).values(seen_at=now)
            if not connection.execute(seen).rowcount:
                row = {"id": server, "host": host, "started_at": now, "seen_at": now}
                connection.execute(insert(servers), row)
            mine = server_targets.c.server == server
            known = set(connection.scalars(select(server_targets.c.target).where(mine)))
            new = [{"server": server, "target": one} for one in sorted(set(targets) - known)]
            if new:
                connection.execute(insert(server_targets), new)

    def leave(self, server: str, reason: str) -> None:
        """Forget a server that ends. What it runs, and what no other can, is ``interrupted``."""
        with self._change() as connection:
            self._forget(connection, server, reason)
            self._interrupt(connection, _QUEUED & _nowhere(), reason)

    def bury(self, lost_s: float) -> list[str]:
        """Forget servers that have not been seen for so long; gives their hosts.

        What they ran is ``interrupted``. What waits, another takes over that can; what none can
        and has waited as long, is ``interrupted`` too.
        """
        with self._change() as connection:
            before = self._moment(connection) - lost_s
            lost = connection.execute(
                select(servers.c.id, servers.c.host)
                .where(servers.c.seen_at < before)
                .with_for_update(skip_locked=True)
            ).all()
            for id, host in lost:
                reason = f"the server on {host} ended, or lost the database, while the job ran"
                self._forget(connection, id, reason)
            forlorn = _QUEUED & _nowhere() & (jobs.c.created_at < before)
            self._interrupt(connection, forlorn, "no server is left that could run the job")
        return [host for _, host in lost]

    def _forget(self, connection: Connection, server: str, reason: str) -> None:
        self._interrupt(connection, _RUNNING & (jobs.c.server == server), reason)
        connection.execute(delete(server_targets).where(server_targets.c.server == server))
        connection.execute(delete(servers).where(servers.c.id == server))


def _nowhere() -> Any:  # noqa: ANN401 - a condition
    """That no server runs jobs of the target."""
    return ~exists().where(server_targets.c.target == jobs.c.target)
