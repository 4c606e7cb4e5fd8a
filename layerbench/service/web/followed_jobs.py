"""The jobs that somebody here waits for, listens to or runs. All of it runs on one event loop.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from layerbench.service.web.database import StoreError
from layerbench.service.web.job_events import PROGRESS, STATE, WAITING, JobEvents
from layerbench.service.web.tables import OPEN, State
from layerbench.service.web.worker_process import ChildFailed


class FollowedJob:
    """What is heard of an open job.

    Attributes:
        id: of the job.
        news: for those who listen.
        ended: whether it has ended.
        waits_since: when it began to wait for the device, if it runs here and does.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.news = JobEvents()
        self.ended = False
        self.waits_since: float | None = None
        self.followers = 0
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def state(self) -> State | None:
        """The state that was told last."""
        return self.news.state

    def tell_state(self, state: State, reason: str = "", ahead: int = 0) -> None:
        """Tell its state to all who follow it; nothing is told after an end."""
        if self.ended:
            return
        self.ended = state not in OPEN
        self.news.tell(STATE, state_of(state, reason, ahead))
        for waiting in self._waiting if self.ended else ():
            if not waiting.done():
                waiting.set_result(None)

    def tell_trouble(self, error: StoreError) -> None:
        """Let those who wait go: the store cannot say what becomes of the job."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(type(error)(str(error)))

    async def end(self, seconds: float) -> None:
        """Wait until it has ended, or so long.

        Raises:
            StoreError: the store cannot say.
        """
        if self.ended:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait_for(waiting, seconds)
        except asyncio.TimeoutError:
            return
        finally:
            self._waiting.discard(waiting)

    def hear(self, event: dict[str, Any]) -> None:
        """Pass on the events of the measuring process."""
        kind = str(event.get("kind"))
        if kind == PROGRESS:
            waits = event.get("phase") == WAITING
            self.waits_since = time.monotonic() if waits else None
        self.pass_on(kind, {name: value for name, value in event.items() if name != "kind"})

    def pass_on(self, kind: str, content: dict[str, Any]) -> None:
        """Tell a piece of news to those who listen; nothing is told after an end."""
        if not self.ended:
            self.news.tell(kind, content)

    @property
    def waits_s(self) -> float:
        """Seconds that another process has held the device."""
        return 0.0 if self.waits_since is None else time.monotonic() - self.waits_since

    def held_up(self, error: ChildFailed) -> str:
        """Why it took too long, if the device was not its."""
        if error.kind != "deadline" or self.waits_since is None:
            return ""
        return f"; another process held the device for {self.waits_s:.0f} s of it"


class FollowedJobs:
    """All of them; one is forgotten once nobody follows it."""

    def __init__(self) -> None:
        self._by_id: dict[str, FollowedJob] = {}

    @contextmanager
    def of(self, id: str) -> Iterator[FollowedJob]:
        """A job, for the time of the block."""
        followed = self._by_id.setdefault(id, FollowedJob(id))
        followed.followers += 1
        try:
            yield followed
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._by_id[id]

    def get(self, id: str) -> FollowedJob | None:
        """A job, if somebody follows it."""
        return self._by_id.get(id)

    def open(self) -> list[FollowedJob]:
        """Those that have not ended."""
        return [one for one in self._by_id.values() if not one.ended]


def state_of(state: State, reason: str = "", ahead: int = 0) -> dict[str, Any]:
    """News of a job: its state, why it ended so, and how many jobs come before it."""
    return {"state": state, "reason": reason, "ahead": ahead}
