"""A process that stays alive and answers one question at a time; restarted if it ends.

Loads no torch itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from layerbench.service.web.worker_process import (
    MOST_ANSWER,
    Child,
    ChildFailed,
    read_answer,
    tail,
)

log = structlog.get_logger("layerbench.service")

# For the last words of a process that has ended.
PATIENCE_S = 3.0
# In an answer: how many bytes come after its line, and what they are called then.
BYTES, DOCUMENT = "bytes", "document"
# That there is no such thing.
UNKNOWN = "unknown"


class Kept:
    """One process.

    Args:
        name: of it in the log.
        module: that it runs.
        first: what it is asked as it begins.
        begin_s: seconds that its first answer may take.

    Attributes:
        turn: held by the one whose question is being answered.
    """

    def __init__(self, name: str, module: str, first: Mapping[str, Any], begin_s: float) -> None:
        self._name = name
        self._module = module
        self._first = first
        self._begin_s = begin_s
        self._child: Child | None = None
        self._complaints: asyncio.Task[bytes] | None = None
        self.turn = asyncio.Lock()

    async def begin(self) -> dict[str, Any]:
        """Begin a process, in place of the one that there was; what it answers first.

        Raises:
            ChildFailed: it gives no answer.
        """
        await self.stop()
        self._child = await Child.begun(self._module, self._first)
        assert self._child.process.stderr is not None
        self._complaints = asyncio.create_task(tail(self._child.process.stderr))
        return await self._answer(self._begin_s)

    async def ask(self, question: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Ask a question; for who holds the ``turn``.

        Raises:
            ChildFailed: there is no answer; the process is gone unless it said so itself.
        """
        if self._child is None or self._child.process.returncode is not None:
            await self.begin()
        assert self._child is not None
        await self._child.ask(question)
        return await self._answer(deadline_s)

    async def stop(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        complaints, self._complaints = self._complaints, None
        if child is not None:
            if child.process.returncode is not None:
                log.info(f"{self._name} ended", status=child.process.returncode)
            await child.end()
        if complaints is not None:
            complaints.cancel()
            await asyncio.wait([complaints])

    async def _answer(self, deadline_s: float) -> dict[str, Any]:
        """The next answer; where there is none, the process is gone afterwards."""
        child = self._child
        assert child is not None
        async with child.watched(self._first.get("memory_bytes")):
            try:
                return await asyncio.wait_for(self._next_answer(child), deadline_s)
            except asyncio.TimeoutError:
                await self.stop()
                raise ChildFailed("deadline", f"it took longer than {deadline_s:g} s") from None
            except ChildFailed:
                raise
            except BaseException:
                # Who waited is gone. What comes next would be taken for the answer to another
                # question.
                await asyncio.shield(self.stop())
                raise

    async def _next_answer(self, child: Child) -> dict[str, Any]:
        complaints = self._complaints
        assert complaints is not None
        out = child.process.stdout
        assert out is not None
        try:
            line = await out.readline()
        except ValueError:
            await self.stop()
            raise ChildFailed("died", "the answer is too long to be read") from None
        if line.endswith(b"\n"):
            return await self._whole(out, await asyncio.to_thread(read_answer, line, b"", 0))
        # It has ended, or was ended because the server does.
        status = await child.process.wait()
        # Processes that it started may hold its standard error open.
        await asyncio.wait([complaints], timeout=PATIENCE_S)
        words = complaints.result() if complaints.done() else b""
        await self.stop()
        return read_answer(line, words, status)

    async def _whole(self, out: asyncio.StreamReader, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer with the bytes that it announces."""
        count = answer.pop(BYTES, None)
        if count is None:
            return answer
        try:
            if not 0 <= count <= MOST_ANSWER:
                raise ValueError
            return {**answer, DOCUMENT: await out.readexactly(count)}
        except (ValueError, TypeError, asyncio.IncompleteReadError):
            await self.stop()
            raise ChildFailed("died", "the answer is too long to be read") from None
