"""The news of a job that runs here, for the servers whose clients listen to it. Loads no torch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator

from layerbench.service.web.database import Database, Message, StoreError
from layerbench.service.web.followed_jobs import FollowedJob
from layerbench.service.web.job_events import ROWS, STATE, Event, Subscription, is_end

# Who wants more asks again within this time, as servers do with each sign of life.
ASKED_S = 10.0
# Characters that a message of PostgreSQL holds: 8,000 bytes, less what stands around the news.
MOST = 7500


class Relay:
    """Tells other servers what is new, for as long as one of them asks.

    Args:
        database: by which it is told.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._job = ""

    def follow(self, job: FollowedJob) -> None:
        """Somebody elsewhere listens to the job that runs."""
        self._asked_until = time.monotonic() + ASKED_S
        if self._task is None or self._task.done() or self._job != job.id:
            self._job = job.id
            self._task = asyncio.create_task(self._tell(job))

    async def stop(self) -> None:
        """Tell no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _tell(self, job: FollowedJob) -> None:
        with job.news.listened() as listener:
            while time.monotonic() < self._asked_until:
                news = await _soon(listener)
                # The store tells the states itself.
                messages = [
                    part for one in news if one[0] != STATE for part in messages_of(job.id, one)
                ]
                with contextlib.suppress(StoreError):
                    if messages:
                        await self._database.call(self._database.tell, messages)
                if any(kind == STATE and is_end(content) for kind, content in news):
                    return


async def _soon(listener: Subscription) -> list[Event]:
    """What is new; nothing if that takes long."""
    try:
        return await asyncio.wait_for(listener.news(), ASKED_S)
    except asyncio.TimeoutError:
        return []


def messages_of(id: str, event: Event) -> Iterator[Message]:
    """A piece of news as one message, or, of many rows, as several.

    What is too long for one and has no rows to divide is left out.
    """
    kind, content = event
    message = {"news": id, "kind": kind, "content": content}
    if len(json.dumps(message)) <= MOST:
        yield message
    elif kind == ROWS and len(content["rows"]) > 1:
        rows = content["rows"]
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            yield from messages_of(id, (kind, {**content, "rows": part}))
