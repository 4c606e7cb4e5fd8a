"""The resident process: it lists device and architectures, then computes structures.

Kept warm, because loading libraries takes longer than most structures do. Loads no torch itself.
"""

from __future__ import annotations

from typing import Any

from layerbench.service.protocol.questions import ViewQuestion
from layerbench.service.web.resident_process import Kept
from layerbench.service.web.settings import Settings

LISTING_S = 300.0
DRAWING_S = 60.0


class StructureProcess(Kept):
    """Works out structures.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        first = {
            "what": "models",
            "device": settings.device,
            "memory_bytes": settings.structure_bytes,
        }
        super().__init__("architect", settings.child, first, LISTING_S)

    async def listed(self) -> dict[str, Any]:
        """The device and all architectures, from a process that starts now.

        Raises:
            ChildFailed: they cannot be told.
        """
        async with self.turn:
            return await self.begin()

    async def drawn(self, question: ViewQuestion) -> dict[str, Any]:
        """The structure of a model, as JSON; for who holds the ``turn``.

        Raises:
            ChildFailed: it cannot be told.
        """
        return await self.ask({"question": question.model_dump(mode="json")}, DRAWING_S)
