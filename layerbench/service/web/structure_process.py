"""The resident process: it lists device and architectures, then computes structures and predicts.

Kept warm, because loading libraries takes longer than most answers do. Loads no torch itself.
"""

from __future__ import annotations

from typing import Any

from layerbench.service.protocol.questions import Question, ViewQuestion
from layerbench.service.protocol.results import CardPrediction
from layerbench.service.web.resident_process import Kept
from layerbench.service.web.settings import Settings

LISTING_S = 300.0
DRAWING_S = PREDICTING_S = 60.0


class StructureProcess(Kept):
    """Works out structures, and predicts for cards that are not here.

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

    async def predicted(self, question: Question) -> dict[str, Any]:
        """A prediction for the card of a question, as JSON; for who holds the ``turn``.

        Raises:
            ChildFailed: there is none.
        """
        task = {"what": CardPrediction.what, "question": question.model_dump(mode="json")}
        return await self.ask(task, PREDICTING_S)
