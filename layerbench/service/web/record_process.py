"""Records as the web process knows them: read, compared and rendered by another one.

A record that takes that process's memory or time is said to be one that cannot be read, and is not
tried again while it stays as it is. Loads no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from layerbench.errors import RecordError
from layerbench.service.web.answers import RecordAnswer
from layerbench.service.web.page_documents import Documents
from layerbench.service.web.record_library import Unknown
from layerbench.service.web.resident_process import DOCUMENT, UNKNOWN, Kept
from layerbench.service.web.settings import Settings
from layerbench.service.web.worker_process import ChildFailed

MODULE = "layerbench.service.web.record_reader"
BEGIN_S = 60.0
# To look through the folders; to read one record; to compare two, or make the page's document.
LIST_S, READ_S, MAKE_S = 20.0, 10.0, 30.0
# Of all records that one list reads for the first time: what is left is read for the next one.
LISTING_S = 30.0
# Who may wait for the process; the others are asked to come again.
MOST_WAITING = 64
# How many that cannot be made into a document are remembered.
MOST_REFUSED = 256
UNREAD = "not read yet: ask again"


class Crowded(Exception):
    """As many requests as allowed are waiting for records."""


class Records:
    """The records that the server was started with.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        first = {
            "places": [str(place.absolute()) for place in settings.records],
            "most_bytes": settings.most_record,
            "memory_bytes": settings.records_memory,
        }
        self._any = bool(settings.records)
        self._process = Kept("reader", MODULE, first, BEGIN_S)
        self._described: dict[str, tuple[list[int], RecordAnswer | None]] = {}
        self._listing = asyncio.Lock()
        self._documents = Documents()
        self._refused: OrderedDict[object, str] = OrderedDict()
        self._waiting = 0

    async def stop(self) -> None:
        """End the process."""
        await self._process.stop()

    async def entries(self) -> list[RecordAnswer]:
        """All records that may be looked at, by path; one that cannot be read says why.

        Raises:
            Crowded: too many wait.
            ChildFailed: the folders cannot be looked through.
        """
        if not self._any:
            return []
        async with self._turn(self._listing):
            async with self._process.turn:
                files = (await self._ask("list", LIST_S))["files"]
            ends = time.monotonic() + LISTING_S
            described = {
                id: await self._entry(id, shown, state, ends) for id, shown, state in files
            }
            self._described = {id: entry for id, entry in described.items() if entry[0]}
        answers = (answer for _, answer in described.values() if answer is not None)
        return sorted(answers, key=lambda one: one.path)

    async def document(self, id: str) -> bytes:
        """A record as the page takes it.

        Raises:
            Unknown: there is none of this number.
            RecordError: it cannot be read, or the page has no picture for it.
            Crowded: too many wait.
        """
        return await self._made("document", id)

    async def comparison(self, baseline: str, contender: str) -> bytes:
        """Two profiles beside each other, as the page takes them.

        Raises:
            Unknown: there is no record of such a number.
            RecordError: one cannot be read, is no profile, or they are not of the same work.
            Crowded: too many wait.
        """
        return await self._made("comparison", baseline, contender)

    async def _entry(
        self, id: str, shown: str, state: list[int], ends: float
    ) -> tuple[list[int], RecordAnswer | None]:
        """The list's entry of a file in a state; an empty state if it must be read again."""
        earlier = self._described.get(id)
        if earlier is not None and earlier[0] == state:
            return earlier
        if time.monotonic() > ends:
            return [], RecordAnswer(id=id, path=shown, problem=UNREAD)
        try:
            async with self._process.turn:
                answer = await self._ask("describe", READ_S, id)
        except Unknown:
            return [], None
        except ChildFailed as error:
            return state, RecordAnswer(id=id, path=shown, problem=_hostile(shown, error))
        described = answer["record"]
        return state, None if described is None else RecordAnswer.model_validate(described)

    async def _made(self, what: str, *ids: str) -> bytes:
        """A document, as it was made before or is made now; so with the reason why there is none.

        Raises:
            Unknown, RecordError, Crowded: as `document` says.
        """
        async with self._turn(self._process.turn):
            try:
                seen = (await self._ask("states", LIST_S, *ids))["states"]
            except ChildFailed as error:
                raise RecordError(f"records cannot be read now: {error.reason}") from None
            key = (what, ids, str(seen))
            if (kept := self._documents.get(key)) is not None:
                return kept
            if key not in self._refused:
                try:
                    document: bytes = (await self._ask(what, MAKE_S, *ids))[DOCUMENT]
                except ChildFailed as error:
                    shown = " and ".join(name for name, _ in seen)
                    self._refuse(key, _hostile(shown, error))
                else:
                    self._documents.keep(key, document)
                    return document
            raise RecordError(self._refused[key])

    def _refuse(self, key: object, reason: str) -> None:
        self._refused[key] = reason
        while len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)

    async def _ask(self, what: str, deadline_s: float, *ids: str) -> dict[str, Any]:
        answer = await self._process.ask({"what": what, "ids": ids}, deadline_s)
        if UNKNOWN in answer:
            raise Unknown
        return answer

    @asynccontextmanager
    async def _turn(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        if not self._any:
            raise Unknown
        if self._waiting >= MOST_WAITING:
            raise Crowded
        self._waiting += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting -= 1


def _hostile(shown: str, error: ChildFailed) -> str:
    """Why a record cannot be shown: a listed problem, or a failure while reading it."""
    if error.kind == "refused":
        return error.reason
    return f"{shown} cannot be read: {error.reason}"
