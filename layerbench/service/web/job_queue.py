"""The queue: one measurement at a time, each question measured once, and none lost.

The queue is a table, and several servers may work on it. Loads no torch. All of it runs on one
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import structlog

from layerbench.service.web.cluster_agent import ClusterAgent
from layerbench.service.web.connections import limit_of
from layerbench.service.web.database import Database, Message, NoRoom, StoreError
from layerbench.service.web.followed_jobs import FollowedJob, FollowedJobs
from layerbench.service.web.job_events import Subscription
from layerbench.service.web.job_keys import AnyQuestion, JobKeys
from layerbench.service.web.job_relay import Relay
from layerbench.service.web.job_runner import Runner
from layerbench.service.web.job_runners import Runners
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.server_presence import Presence
from layerbench.service.web.settings import Settings
from layerbench.service.web.tables import Job, Result, State
from layerbench.service.web.worker_process import ChildFailed

log = structlog.get_logger("layerbench.service")

# Of the connections, those whose requests may wait for a job; the others are for who does not.
WAITING_SHARE = 0.75
# How many ends are remembered that the store could not be told.
MOST_UNWRITTEN = 1000
# Between two tries on a store that could not be read or written, and how long what was measured
# is kept for one that other servers have, too: it may be back soon.
AGAIN_S = 1.0
AWAY_S = 60.0
# Changes of the queue that others make, so close together, are looked at once.
TOGETHER_S = 0.05
LOST = "the job is no longer there as it was: another program changed the store"
STOPPED = "the server was stopped"


def _no_kind(_: str) -> None:
    """There is no cluster, and so no device of one."""


class QueueFull(Exception):
    """No further job can wait; ``retry_after_s`` says when to come again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full: come again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Jobs:
    """The measurements of one server, and those of others that its clients ask for.

    Args:
        settings: of the server.
        database: where jobs and results lie.
        catalog: that knows the device.
        metrics: that are counted.
        agent: of a cluster, whose devices measure, too.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        catalog: Catalog,
        metrics: Metrics,
        agent: ClusterAgent | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._presence = Presence(database, settings.lost_s)
        self._followed = FollowedJobs()
        self._relay = Relay(database)
        server = self._presence.id if database.shared else ""
        self._agent = agent
        self._keys = JobKeys(catalog, settings.specs, server, agent.kind_of if agent else _no_kind)
        self._runners = Runners(settings, catalog, metrics, self._keys, agent)
        self._queued = 0
        # Ends that the store could not be told, and of them those that it can still be.
        self._unwritten: OrderedDict[str, Job] = OrderedDict()
        self._to_write: dict[str, Job] = {}
        self._most_waiting = int(WAITING_SHARE * limit_of(settings))
        self._those_who_wait = 0
        # Of each runner that waits for a job.
        self._arrivals: set[asyncio.Event] = set()
        self._moved = asyncio.Event()
        # Those that only `stop` ends, and all of them.
        self._lasting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def begin(self) -> None:
        """Take over from a server before, and work from now on.

        Raises:
            StoreError: the store cannot be written.
        """
        call = self._database.call
        if not self._database.shared:
            reason = "the server ended while the job waited or ran"
            if lost := await call(self._database.interrupt_open, reason):
                log.warning("jobs interrupted", count=lost)
            await call(self._database.forget_old)
        self._lasting = [self._beside(self._work(self._runners.here))]
        if self._agent is not None:
            self._lasting.append(self._beside(self._agent.kept()))
        if self._database.shared:
            self._beside(self._forget_old())
            self._lasting += [
                self._beside(self._database.listen(self._heard)),
                self._beside(
                    self._presence.kept(self._runners.targets, self._look, self._tell_trouble)
                ),
                self._beside(self._follow_queue()),
            ]

    def devices_changed(self) -> None:
        """Let as many jobs run at once as the cluster has devices."""
        for runner in self._runners.new():
            self._lasting.append(self._beside(self._work(runner)))
        self._wake()

    def _wake(self) -> None:
        """Let all runners look for a job."""
        for arrived in self._arrivals:
            arrived.set()

    async def _forget_old(self) -> None:
        # Of a million it may take a while.
        with contextlib.suppress(StoreError):
            await self._database.call(self._database.forget_old)

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ended unexpectedly", task=str(task.get_coro()), exc_info=error)

    async def stop(self) -> None:
        """End running measurements; open jobs that no other server can run are ``interrupted``."""
        # A cancellation that comes together with a result can be lost on its way.
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._relay.stop()
        for runner in self._runners.all():
            await runner.end()
            if runner.job is not None:
                await self._end(runner.job, "interrupted", STOPPED)
        with contextlib.suppress(StoreError):
            if self._to_write:
                log.warning("the store could not be told what was interrupted")
            elif self._database.shared:
                await self._database.call(self._database.leave, self._presence.id, STOPPED)
                await self._look()
            else:
                await self._database.call(self._database.interrupt_open, STOPPED)
        for followed in self._followed.open():
            followed.tell_state("interrupted", STOPPED)

    @property
    def alive(self) -> bool:
        """Whether jobs are being worked on, and the one that runs can still end."""
        at_work = bool(self._lasting) and not any(task.done() for task in self._lasting)
        return at_work and not self._runners.wedged

    @property
    def complaint(self) -> str | None:
        """Why nothing could be measured now, if so."""
        if not self.alive:
            return "the measurement that runs cannot be ended: restart the service"
        return self._runners.complaint

    @property
    def idle(self) -> bool:
        """Whether nothing is being measured here."""
        return self._runners.idle

    # --- what is asked -----------------------------------------------------------------------

    async def found(self, question: AnyQuestion) -> Result | None:
        """What is stored for such a question, be it an answer to the next one or not."""
        return await self._database.look_up(self._keys.key(question))

    async def ask(
        self, question: AnyQuestion, *, rejected: Result | None = None, anew: bool = False
    ) -> Job:
        """A job that measures a question: the one that does already, or a new one.

        Args:
            question: that is asked.
            rejected: what was found stored, and is no answer.
            anew: measure it, whatever is stored. Without it a job may be given that has just ended.

        Raises:
            QueueFull: there is no room for a new one.
            StoreError: the store cannot be written.
        """
        try:
            job = await self._database.call(
                self._database.add,
                self._keys.key(question),
                question.model_dump(mode="json"),
                question.what,
                target=self._keys.target(question),
                most=self._settings.queue,
                rejected=rejected,
                anew=anew,
            )
        except NoRoom:
            raise QueueFull(self.wait_s) from None
        await self._count_queue()
        self._wake()
        return job

    @property
    def wait_s(self) -> int:
        """Seconds until a job that is asked for now is likely to have ended."""
        ahead = self._queued + (not self.idle)
        return max(1, round(self._runners.usual_s * max(1, ahead)))

    async def wait(self, id: str, seconds: float) -> Job | None:
        """The job once it has ended, or as it is after so long.

        As it is now where so many wait already that no connection would be left for others.

        Raises:
            StoreError: the store cannot say what becomes of it.
        """
        with self._followed.of(id) as followed:
            job = await self.job(id)
            if job is None or not job.open or self.crowded:
                return job
            with self._one_more_waits():
                await followed.end(seconds)
            return await self.job(id)

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

    async def job(self, id: str) -> Job | None:
        """The job of a number."""
        unwritten = self._unwritten.get(id)
        return unwritten or await self._database.call(self._database.job, id)

    @asynccontextmanager
    async def listened(self, id: str) -> AsyncIterator[Subscription | None]:
        """Somebody who listens to an open job; ``None`` for one that has ended, or never was."""
        with self._followed.of(id) as followed:
            job = await self.job(id)
            if job is None or not job.open:
                yield None
                return
            with self._one_more_waits(), followed.news.listened() as listener:
                if followed.state is None:
                    followed.tell_state(job.state)
                await self._count_queue()
                with contextlib.suppress(StoreError):
                    await self._follow([followed])
                yield listener

    async def cancel(self, id: str) -> Job | None:
        """End a job that waits or runs; one that has ended stays as it is.

        Another server that runs it hears of that, and ends its process.
        """
        job = await self.job(id)
        if job is None or not job.open:
            return job
        with self._followed.of(id):
            await self._end(job, "cancelled", "cancelled on request")
            await self._count_queue()
            if (runner := self._runners.running(id)) is not None:
                await runner.end()
        return await self.job(id)

    # --- what other servers tell ---------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        """What a server of the same database tells, this one included."""
        if "queue" in message or "job" in message:
            self._wake()
            self._moved.set()
        if "job" in message:
            self._told(message["job"], message["state"], message["reason"])
        elif "follow" in message:
            runner = self._runners.running(message["follow"])
            if runner is not None and runner.followed is not None:
                self._relay.follow(runner.followed)
        elif "news" in message:
            followed = self._followed.get(message["news"])
            if followed is not None and self._runners.running(followed.id) is None:
                followed.pass_on(message["kind"], message["content"])

    def _told(self, id: str, state: State, reason: str) -> None:
        """The state of a job, as the store has it."""
        followed = self._followed.get(id)
        if followed is None or followed.ended or (state == followed.state != "queued"):
            return
        followed.tell_state(state, reason)
        if followed.ended and (runner := self._runners.running(id)) is not None:
            # Cancelled by way of another server, or taken for lost.
            self._beside(runner.end())

    async def _look(self) -> None:
        """Look at what may have been told while nobody heard.

        Raises:
            StoreError: the store cannot be read.
        """
        self._wake()
        self._moved.set()
        if not (followed := self._followed.open()):
            return
        states = await self._database.call(self._database.states, [one.id for one in followed])
        for id, (state, reason) in states.items():
            if state != "queued":
                self._told(id, state, reason)
        await self._follow(followed)

    def _tell_trouble(self, error: StoreError) -> None:
        """Let those go who wait for what does not run here: the store cannot say how far it is."""
        for followed in self._followed.open():
            if self._runners.running(followed.id) is None:
                followed.tell_trouble(error)

    async def _follow(self, followed: list[FollowedJob]) -> None:
        """Ask the servers that run jobs for their news, if somebody here listens."""
        others = [
            {"follow": one.id}
            for one in followed
            if one.news.heard and one.state == "running" and self._runners.running(one.id) is None
        ]
        if others:
            await self._database.call(self._database.tell, others)

    async def _follow_queue(self) -> None:
        """Count anew what waits, whenever another server has changed it."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self._count_queue()
            await asyncio.sleep(TOGETHER_S)

    async def _count_queue(self) -> None:
        """Count the waiting jobs, and send each the number of jobs before it."""
        followed = [one for one in self._followed.open() if one.news.heard]
        with contextlib.suppress(StoreError):
            if not followed:
                self._queued = await self._database.call(self._database.count, "queued")
            else:
                ahead = await self._database.call(self._database.ahead)
                self._queued = len(ahead)
                for one in followed:
                    if one.state == "queued" and one.id in ahead:
                        one.tell_state("queued", ahead=ahead[one.id])
            self._metrics.queued.set(self._queued)

    # --- working ---------------------------------------------------------------------------

    async def _work(self, runner: Runner) -> None:
        arrived = asyncio.Event()
        self._arrivals.add(arrived)
        while not self._stopping:
            job = await self._next(runner, arrived)
            with self._followed.of(job.id) as followed, runner.running(job, followed):
                await self._run(runner, job, followed)

    async def _next(self, runner: Runner, arrived: asyncio.Event) -> Job:
        """The job that is to run now; waited for."""
        while True:
            arrived.clear()
            try:
                await self._write_ends()
                job = await self._runners.take(runner, self._database, self._presence.id)
            except StoreError as error:
                self._tell_trouble(error)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(arrived.wait(), AGAIN_S)
                continue
            if job is not None:
                return job
            await arrived.wait()

    async def _write_ends(self) -> None:
        """Tell the store what it could not be told before.

        Raises:
            StoreError: nor can it now.
        """
        for id, job in list(self._to_write.items()):
            await self._database.call(self._database.end, id, job.state, job.reason)
            self._to_write.pop(id)

    async def _run(self, runner: Runner, job: Job, followed: FollowedJob) -> None:
        followed.tell_state("running")
        await self._count_queue()
        try:
            answer = await runner.answer(job, followed)
            if answer is not None:
                await self._keep(job, answer)
        except ChildFailed as error:
            reason = f"{error.kind}: {error.reason}{followed.held_up(error)}"
            await self._end(job, "failed", reason)
        except StoreError as error:
            await self._end(job, "failed", f"store: it cannot be written: {error}")
        except Exception as error:
            # Whatever it is, the next job shall run.
            log.exception("measuring failed", job=job.id)
            await self._end(job, "failed", f"died: {error}")

    async def _keep(self, job: Job, answer: dict[str, Any]) -> None:
        """Store what a job found, if it is still to be had.

        Raises:
            StoreError: it cannot be stored.
        """
        ends = time.monotonic() + (AWAY_S if self._database.shared else 0.0)
        while True:
            try:
                kept = await self._database.call(self._database.finish, job.id, answer)
                break
            except StoreError:
                if time.monotonic() >= ends:
                    raise
                await asyncio.sleep(AGAIN_S)
        if kept:
            self._ended(job, "done", "")
        else:
            await self._end(job, "failed", f"store: {LOST}")

    async def _end(self, job: Job, state: State, reason: str) -> None:
        """The end of a job, once: in the store, in the counters, and for those who wait."""
        followed = self._followed.get(job.id)
        if followed is not None and followed.ended:
            return
        again = False
        try:
            written = await self._database.call(self._database.end, job.id, state, reason)
        except StoreError:
            written, again = False, True
        if not written:
            now = None
            if self._database.shared and not again:
                with contextlib.suppress(StoreError):
                    now = await self._database.call(self._database.job, job.id)
            if now is not None and not now.open:
                # Another server was first, and has counted it.
                self._told(job.id, now.state, now.reason)
                return
            # Those who ask are told all the same.
            ended = replace(job, state=state, reason=reason, ended_at=time.time())
            self._unwritten[job.id] = ended
            if again:
                self._to_write[job.id] = ended
            while len(self._unwritten) > MOST_UNWRITTEN:
                self._to_write.pop(self._unwritten.popitem(last=False)[0], None)
        self._ended(job, state, reason)

    def _ended(self, job: Job, state: State, reason: str) -> None:
        self._metrics.jobs.labels(state=state).inc()
        log.info("ended", job=job.id, state=state, reason=reason)
        followed = self._followed.get(job.id)
        if followed is not None:
            followed.tell_state(state, reason)
