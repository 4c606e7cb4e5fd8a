"""The process that stays: it tells device and architectures, and then works out structures.

Kept warm, because loading libraries takes longer than most structures do. Loads no torch itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from layerbench.service.children import Child, ChildFailed, read_answer, tail
from layerbench.service.questions import ViewQuestion
from layerbench.service.settings import Settings

log = structlog.get_logger("layerbench.service")

LISTING_S = 300.0
DRAWING_S = 60.0
# For the last words of a process that has ended.
PATIENCE_S = 3.0


class Architect:
    """One process, asked one thing at a time, and begun anew where it has ended.

    Args:
        settings: of the server.

    Attributes:
        turn: held by the one whose question is being answered.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: Child | None = None
        self._complaints: asyncio.Task[bytes] | None = None
        self.turn = asyncio.Lock()

    async def listed(self) -> dict[str, Any]:
        """The device and all architectures, told by a process that begins now.

        Raises:
            ChildFailed: they cannot be told.
        """
        async with self.turn:
            await self._end()
            return await self._begin()

    async def drawn(self, question: ViewQuestion) -> dict[str, Any]:
        """The structure of a model, as JSON; for who holds the ``turn``.

        Raises:
            ChildFailed: it cannot be told.
        """
        if self._child is None or self._child.process.returncode is not None:
            await self._end()
            await self._begin()
        assert self._child is not None
        await self._child.ask({"question": question.model_dump(mode="json")})
        return await self._answer(DRAWING_S)

    async def stop(self) -> None:
        """End the process."""
        await self._end()

    async def _begin(self) -> dict[str, Any]:
        settings = self._settings
        asked = {
            "what": "models",
            "device": settings.device,
            "memory_bytes": settings.memory_bytes,
        }
        self._child = await Child.begun(settings.child, asked)
        assert self._child.process.stderr is not None
        self._complaints = asyncio.create_task(tail(self._child.process.stderr))
        return await self._answer(LISTING_S)

    async def _answer(self, deadline_s: float) -> dict[str, Any]:
        """The next line; where there is none, the process is gone afterwards."""
        child, complaints = self._child, self._complaints
        assert child is not None
        assert complaints is not None
        out = child.process.stdout
        assert out is not None
        try:
            line = await asyncio.wait_for(out.readline(), deadline_s)
        except asyncio.TimeoutError:
            await self._end()
            raise ChildFailed("deadline", f"it took longer than {deadline_s:g} s") from None
        except ValueError:
            await self._end()
            raise ChildFailed("died", "the answer is too long to be read") from None
        except BaseException:
            # Who waited is gone. What comes next would be taken for the answer to another question.
            await asyncio.shield(self._end())
            raise
        if line.endswith(b"\n"):
            return await asyncio.to_thread(read_answer, line, b"", 0)
        # It has ended, or was ended because the server does.
        status = await child.process.wait()
        # Processes that it started may hold its standard error open.
        await asyncio.wait([complaints], timeout=PATIENCE_S)
        said = complaints.result() if complaints.done() else b""
        await self._end()
        return read_answer(line, said, status)

    async def _end(self) -> None:
        child, self._child = self._child, None
        complaints, self._complaints = self._complaints, None
        if child is not None:
            log.info("architect ended", status=child.process.returncode)
            await child.end()
        if complaints is not None:
            complaints.cancel()
            await asyncio.wait([complaints])
