"""The queue: one measurement at a time, each question measured once, and none lost.

Loads no torch. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from layerbench._version import __version__
from layerbench.analysis import disturbance
from layerbench.environment.device_lock import DeviceLock, held_by_another, lock_path
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.service.protocol.questions import ProfileQuestion, Question
from layerbench.service.protocol.results import MeasurementResult, unsteadiness
from layerbench.service.web.connections import limit_of
from layerbench.service.web.database import Database, Job, Result, State
from layerbench.service.web.job_events import PROGRESS, STATE, WAITING, JobEvents, Subscription
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.page_documents import read_profile
from layerbench.service.web.settings import Settings
from layerbench.service.web.worker_process import Child, ChildFailed

log = structlog.get_logger("layerbench.service")

# A measurement counts as so long before any has ended, and this much of the latest goes in.
FIRST_GUESS_S = 30.0
LATEST = 0.3
# A measurement that has not ended so long after its deadline never will.
WEDGED_S = 30.0
# Who waits longer than this for the device is told of by `ready`.
HELD_S = 60.0
# Of the connections, those whose requests may wait for a job; the others are for who does not.
WAITING_SHARE = 0.75
# How many ends are remembered that the store could not be told.
MOST_UNWRITTEN = 1000
# In what is stored: why it is no answer to the next one who asks.
UNSTEADY = "unsteady"
LOST = "the job is no longer there as it was: another program changed the store"
PACKAGES = ("torch", "torchvision", "timm", "transformers")
# What is found for each kind of question.
FORMS: dict[str, tuple[type[BaseModel], ...]] = {
    Question.what: (MeasurementResult,),
    ProfileQuestion.what: (Profile, Structure, MemoryReport),
}

AnyQuestion = Question | ProfileQuestion
# Forms by the names under which stores have them from when descriptions were a part of the form.
NAMED_BEFORE = {"798f5641": "db00bc0d", "8a29df3a": "25e210b2"}


class QueueFull(Exception):
    """No further job can wait; ``retry_after_s`` says when to come again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full: come again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass
class _Open:
    """A job that waits or runs.

    ``ended`` tells those who wait for it, ``news`` those who listen; ``waits_since`` when it began
    to wait for the device.
    """

    job: Job
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    news: JobEvents = field(default_factory=JobEvents)
    waits_since: float | None = None

    def hear(self, event: dict[str, Any]) -> None:
        """Pass on the events of the measuring process."""
        if event.get("kind") == PROGRESS:
            waits = event.get("phase") == WAITING
            self.waits_since = time.monotonic() if waits else None
        if not self.ended.is_set():
            content = {name: value for name, value in event.items() if name != "kind"}
            self.news.tell(str(event.get("kind")), content)

    @property
    def waits_s(self) -> float:
        """Seconds that another process has held the device."""
        return 0.0 if self.waits_since is None else time.monotonic() - self.waits_since

    def held_up(self, error: ChildFailed) -> str:
        """Why it took too long, if the device was not its."""
        if error.kind != "deadline" or self.waits_since is None:
            return ""
        return f"; another process held the device for {self.waits_s:.0f} s of it"


class Jobs:
    """All measurements of one server.

    Args:
        settings: of the server.
        database: where jobs and results lie.
        catalog: that knows the device.
        metrics: that are counted.
    """

    def __init__(
        self, settings: Settings, database: Database, catalog: Catalog, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._database = database
        self._metrics = metrics
        self._waiting: deque[_Open] = deque()
        self._running: _Open | None = None
        self._began = 0.0
        self._child: Child | None = None
        self._device_lock = DeviceLock()
        self._by_key: dict[str, _Open] = {}
        self._by_id: dict[str, _Open] = {}
        # Ends that the store could not be told.
        self._unwritten: OrderedDict[str, Job] = OrderedDict()
        self._most_waiting = int(WAITING_SHARE * limit_of(settings))
        self._those_who_wait = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._usual_s = FIRST_GUESS_S
        self._stopping = False
        self._versions = {what: versions(*kinds) for what, kinds in FORMS.items()}

    async def begin(self) -> None:
        """Take over from a server before, and work from now on."""
        lost = self._database.interrupt_open("the server ended while the job waited or ran")
        if lost:
            log.warning("jobs interrupted", count=lost)
        self._database.forget_old()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End running measurements; open jobs become ``interrupted``."""
        # A cancellation that comes together with a result can be lost on its way.
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._child is not None:
            await self._child.end()
        for entry in list(self._by_id.values()):
            self._close(entry, "interrupted", "the server was stopped")

    @property
    def alive(self) -> bool:
        """Whether jobs are being worked on, and the one that runs can still end."""
        if self._task is None or self._task.done():
            return False
        late = time.monotonic() - self._began - self._settings.deadline
        return self._running is None or late < WEDGED_S

    @property
    def complaint(self) -> str | None:
        """Why nothing could be measured now, if so."""
        if not self.alive:
            return "the measurement that runs cannot be ended: restart the service"
        if not self._catalog.device:
            # Nothing has been measured, and the lock has no name yet.
            return None
        if self._running is None:
            return self._device_lock.complaint(self._lock(None))
        if self._running.waits_s > HELD_S:
            return (
                f"another process has held the device for {self._running.waits_s:.0f} s, by the "
                f"lock {self._lock(self._running.job)}"
            )
        if self._running.waits_s and self._device_lock.missed:
            # A deadline may be shorter than that.
            return held_by_another(self._lock(self._running.job))
        return None

    @property
    def idle(self) -> bool:
        """Whether nothing is being measured."""
        return self._running is None

    def key(self, question: AnyQuestion) -> str:
        """What a question's result is stored under: all that the result depends on.

        The catalog has to know the device.
        """
        content = {
            **question.depends_on(),
            "device": self._catalog.device_of(getattr(question, "device", None)),
            "versions": self._versions[question.what],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def stored(self, question: AnyQuestion) -> Result | None:
        """What was measured for such a question before, and is an answer to the next."""
        result = self._database.result(self.key(question))
        return None if result is None or result.found.get(UNSTEADY) else result

    def ask(self, question: AnyQuestion) -> Job:
        """A job that measures a question: the one that does already, or a new one.

        Raises:
            QueueFull: there is no room for a new one.
            sqlite3.Error: the store cannot be written.
        """
        key = self.key(question)
        if key in self._by_key:
            return self._by_key[key].job
        if len(self._waiting) >= self._settings.queue:
            raise QueueFull(self.wait_s)
        job = self._database.add(key, question.model_dump(mode="json"), question.what)
        entry = _Open(job)
        self._by_key[key] = self._by_id[job.id] = entry
        self._waiting.append(entry)
        self._queue_changed()
        self._arrived.set()
        return entry.job

    @property
    def wait_s(self) -> int:
        """Seconds until a job that is asked for now is likely to have ended."""
        ahead = len(self._waiting) + (self._running is not None)
        return max(1, round(self._usual_s * max(1, ahead)))

    async def wait(self, id: str, seconds: float) -> Job | None:
        """The job once it has ended, or as it is after so long.

        As it is now where so many wait already that no connection would be left for others.
        """
        entry = self._by_id.get(id)
        if entry is not None and not self.crowded:
            with contextlib.suppress(asyncio.TimeoutError), self._one_more_waits():
                await asyncio.wait_for(entry.ended.wait(), seconds)
        return self.job(id)

    @property
    def crowded(self) -> bool:
        """Whether as many clients as allowed wait for jobs or follow them."""
        return self._those_who_wait >= self._most_waiting

    @contextmanager
    def _one_more_waits(self) -> Iterator[None]:
        self._those_who_wait += 1
        try:
            yield
        finally:
            self._those_who_wait -= 1

    def job(self, id: str) -> Job | None:
        """The job of a number."""
        return self._unwritten.get(id) or self._database.job(id)

    @contextmanager
    def listened(self, id: str) -> Iterator[Subscription | None]:
        """Somebody who listens to an open job; ``None`` for one that has ended, or never was."""
        entry = self._by_id.get(id)
        if entry is None:
            yield None
            return
        with self._one_more_waits(), entry.news.listened() as listener:
            yield listener

    async def cancel(self, id: str) -> Job | None:
        """End a job that waits or runs; one that has ended stays as it is."""
        entry = self._by_id.get(id)
        if entry is not None:
            self._close(entry, "cancelled", "cancelled on request")
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._queue_changed()
            if entry is self._running and self._child is not None:
                await self._child.end()
        return self.job(id)

    # --- working ---------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._stopping:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            entry = self._waiting.popleft()
            if not entry.ended.is_set():
                await self._run(entry)

    async def _run(self, entry: _Open) -> None:
        self._running, self._began = entry, time.monotonic()
        self._metrics.running.set(1)
        self._queue_changed()
        try:
            await self._measure(entry)
        except Exception as error:
            # Whatever it is, the next job shall run.
            log.exception("measuring failed", job=entry.job.id)
            self._close(entry, "failed", f"died: {error}")
        self._device_lock.missed = entry.waits_since is not None
        self._running = self._child = None
        self._metrics.running.set(0)
        took = time.monotonic() - self._began
        self._metrics.seconds.observe(took)
        self._usual_s += LATEST * (took - self._usual_s)

    async def _measure(self, entry: _Open) -> None:
        job, settings = entry.job, self._settings
        log.info("measuring", job=job.id, question=job.question)
        try:
            if not self._database.start(job.id):
                self._close(entry, "failed", f"store: {LOST}")
                return
            entry.news.tell(STATE, state_of("running"))
            self._child = await Child.begun(settings.child, self._order(entry), entry.hear)
            if entry.ended.is_set():
                # Cancelled while it was being started.
                await self._child.end()
                return
            answer = await self._child.answer(settings.deadline, settings.memory_bytes)
            answer[UNSTEADY] = await asyncio.to_thread(checked, job.what, answer)
            if entry.ended.is_set():
                return
            if self._database.finish(job.id, answer):
                self._close(entry, "done", "")
            else:
                self._close(entry, "failed", f"store: {LOST}")
        except ChildFailed as error:
            self._close(entry, "failed", f"{error.kind}: {error.reason}{entry.held_up(error)}")
        except sqlite3.Error as error:
            self._close(entry, "failed", f"store: it cannot be written: {error}")

    def _order(self, entry: _Open) -> dict[str, Any]:
        settings = self._settings
        return {
            "what": entry.job.what,
            "question": entry.job.question,
            "device": _device(entry.job.question) or settings.device,
            "seconds": settings.seconds,
            "memory_bytes": settings.memory_bytes,
            "lock": str(self._lock(entry.job)),
        }

    def _lock(self, job: Job | None) -> Path:
        """The lock of the device that a job is measured on; of none, of the usual one."""
        # The place alone: what stands there is measured by one at a time.
        named = self._catalog.device_of(_device(job.question) if job else None)
        return lock_path(named.partition(" ")[0], self._settings.locks)

    def _close(self, entry: _Open, state: State, reason: str) -> None:
        """The end of a job, once: in the store, in the counters, and for those who wait."""
        if entry.ended.is_set():
            return
        job = entry.job
        if state != "done":
            try:
                written = self._database.end(job.id, state, reason)
            except sqlite3.Error:
                written = False
            if not written:
                # Those who ask are told all the same; the next server finds it open.
                self._unwritten[job.id] = replace(
                    job, state=state, reason=reason, ended_at=time.time()
                )
                while len(self._unwritten) > MOST_UNWRITTEN:
                    self._unwritten.popitem(last=False)
        self._by_key.pop(job.key, None)
        self._by_id.pop(job.id, None)
        self._metrics.jobs.labels(state=state).inc()
        log.info("ended", job=job.id, state=state, reason=reason)
        entry.ended.set()
        entry.news.tell(STATE, state_of(state, reason))

    def _queue_changed(self) -> None:
        """Count the waiting jobs, and send each the number of jobs before it."""
        self._metrics.queued.set(len(self._waiting))
        first = int(self._running is not None)
        for ahead, entry in enumerate(self._waiting, start=first):
            entry.news.tell(STATE, state_of("queued", ahead=ahead))


def _device(question: Mapping[str, Any]) -> str | None:
    """That a question names; ``None`` where it leaves it to the server."""
    named: str | None = question.get("device")
    return named


def state_of(state: State, reason: str = "", ahead: int = 0) -> dict[str, Any]:
    """News of a job: its state, why it ended so, and how many jobs come before it."""
    return {"state": state, "reason": reason, "ahead": ahead}


def checked(what: str, answer: dict[str, Any]) -> str:
    """Look whether what a process found can be read again; why it is not to be kept, if so.

    Raises:
        ChildFailed: it cannot be read.
    """
    try:
        if what == Question.what:
            return unsteadiness(MeasurementResult.model_validate(answer))
        profile = read_profile(answer).profile
        return "" if profile is None else disturbance.too_busy(profile)
    except (ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ChildFailed("died", f"the measuring process found what is no result: {reason}") from (
            error
        )


def versions(*kinds: type[BaseModel]) -> Mapping[str, str]:
    """Of the software that a result depends on, and of the form in which it is found."""
    # What is stored in another form is not found, rather than misread.
    schemas = [_without_words(kind.model_json_schema()) for kind in kinds]
    form = "".join(json.dumps(schema, sort_keys=True) for schema in schemas)
    digest = hashlib.sha256(form.encode()).hexdigest()[:8]
    software = {"layerbench": __version__, "form": NAMED_BEFORE.get(digest, digest)}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    return software


def _without_words(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """A schema without descriptions: another wording is no other form."""
    if isinstance(schema, list):
        return [_without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_words(part)
        for name, part in schema.items()
        if not (name == "description" and isinstance(part, str))
    }
