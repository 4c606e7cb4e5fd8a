"""The known architectures by task, listed by a measuring process once for each version of them.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import sqlite3

import structlog

from layerbench.service.children import Child, ChildFailed
from layerbench.service.database import Database
from layerbench.service.jobs import versions
from layerbench.service.questions import Question
from layerbench.service.settings import Settings

log = structlog.get_logger("layerbench.service")

LISTING_S = 300.0
MOST_CLOSE_MATCHES = 3

Names = dict[str, list[str]]


class Catalog:
    """What may be asked about.

    Args:
        settings: of the server.
        database: that remembers the names.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._versions = json.dumps(versions(), sort_keys=True)
        self._names: Names | None = None
        self._sets: dict[str, frozenset[str]] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """List the names, unless they are remembered."""
        remembered = self._database.models(self._versions)
        if remembered is not None:
            self._know(remembered)
        else:
            self._task = asyncio.create_task(self._list())

    async def stop(self) -> None:
        """End what is still listing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def names(self) -> Names | None:
        """Once they are known; ``None`` if they cannot be had."""
        if self._names is None:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._list())
            # Who no longer waits for the names does not end the listing for the others.
            await asyncio.shield(self._task)
        return self._names

    def complaint(self, question: Question) -> str | None:
        """What is wrong with a question's architecture; `names` have to be known."""
        name, task = question.architecture, question.task_type
        if name in self._sets[task]:
            return None
        others = [other for other, names in self._sets.items() if name in names]
        if others:
            return f"{name} is no architecture for {task}, but for {' and '.join(others)}"
        assert self._names is not None
        close = difflib.get_close_matches(name, self._names[task], n=MOST_CLOSE_MATCHES)
        hint = f"did you mean {', '.join(close)}?" if close else "GET /api/v1/models lists all"
        return f"no architecture {name!r} for {task}: {hint}"

    def _know(self, names: Names) -> None:
        self._sets = {task: frozenset(found) for task, found in names.items()}
        self._names = names

    async def _list(self) -> None:
        try:
            child = await Child.begun(self._settings.child, {"what": "models"})
            names = await child.answer(LISTING_S)
        except ChildFailed as error:
            log.error("architectures cannot be listed", reason=error.reason)
            return
        self._know(names)
        with contextlib.suppress(sqlite3.Error):
            self._database.keep_models(self._versions, names)
