"""The state of running jobs, and their subscribers. Loads no torch.

Who listens slowly is told less, not later: what is newer takes the place of what was not yet told.
All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from layerbench.service.web.tables import OPEN, State

Event = tuple[str, dict[str, Any]]
"""The name of a piece of news, and what it says."""

# In which order they are told.
KINDS = ("state", "progress", "running", "rows")
STATE, PROGRESS, ROWS = "state", "progress", "rows"
# The phase of a measurement that another process keeps from the device.
WAITING = "waiting for the device"


class Subscription:
    """Events that a subscriber has not received yet: at most one of each kind."""

    def __init__(self, latest: Mapping[str, dict[str, Any]]) -> None:
        self._untold = dict(latest)
        self._new = asyncio.Event()
        if latest:
            self._new.set()

    def note(self, kind: str, content: dict[str, Any]) -> None:
        """Keep a piece of news, in place of what it makes old."""
        _merge(self._untold, kind, content)
        self._new.set()

    async def news(self) -> list[Event]:
        """Wait for something new, and take all of it; the job's end comes last."""
        await self._new.wait()
        self._new.clear()
        untold, self._untold = self._untold, {}
        news = [(kind, untold[kind]) for kind in KINDS if kind in untold]
        if news and news[0][0] == STATE and is_end(news[0][1]):
            news.append(news.pop(0))
        return news


class JobEvents:
    """The latest of each kind of one job, for those who come late, and all who listen."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[str, Any]] = {}
        self._listeners: set[Subscription] = set()

    def tell(self, kind: str, content: dict[str, Any]) -> None:
        """Send an event to all subscribers. Events of unknown kinds are dropped."""
        if kind not in KINDS:
            return
        _merge(self._latest, kind, content)
        for listener in self._listeners:
            listener.note(kind, content)

    @property
    def state(self) -> State | None:
        """The state that was told last."""
        latest = self._latest.get(STATE)
        return None if latest is None else latest["state"]

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    @contextmanager
    def listened(self) -> Iterator[Subscription]:
        """A subscription for the time of the block. It first gets all events so far."""
        listener = Subscription(self._latest)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


def is_end(state: Mapping[str, Any]) -> bool:
    """Whether nothing comes after such a state."""
    return state["state"] not in OPEN


def _merge(latest: dict[str, dict[str, Any]], kind: str, content: dict[str, Any]) -> None:
    earlier = latest.get(kind)
    if kind == ROWS and earlier is not None:
        # A forward that has only begun says nothing of the layers that are still to come.
        rows = {row[0]: row for row in (*earlier["rows"], *content["rows"])}
        content = {**content, "rows": list(rows.values())}
    latest[kind] = content
