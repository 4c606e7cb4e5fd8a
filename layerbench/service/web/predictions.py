"""Answers for cards that are not here: from the store, or made at once. Loads no torch."""

from __future__ import annotations

import hashlib
import json

from pydantic import ValidationError

from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import CardPrediction
from layerbench.service.web.database import Database
from layerbench.service.web.job_results import versions
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.structure_process import StructureProcess
from layerbench.service.web.tables import Result
from layerbench.service.web.worker_process import ChildFailed


class Predictions:
    """All predictions of one server. None waits for a measurement, and none is a job.

    Args:
        architect: the process that makes them.
        catalog: that knows what they are made of.
        database: where they are stored.
    """

    def __init__(self, architect: StructureProcess, catalog: Catalog, database: Database) -> None:
        self._architect = architect
        self._catalog = catalog
        self._database = database
        self._versions = versions(CardPrediction)

    def key(self, question: Question) -> str:
        """What a question's prediction is stored under: all that it depends on.

        The catalog has to know what predictions are made of.
        """
        content = {
            **question.depends_on(),
            # How hardware is looked at that is not there.
            "threading": None,
            "what": CardPrediction.what,
            "device": question.device,
            "predictor": self._catalog.predictor,
            "versions": self._versions,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    async def stored(self, question: Question) -> Result | None:
        """What was predicted for such a question before; ``None`` where that cannot be read."""
        result = await self._database.look_up(self.key(question))
        return result if result is not None and _complaint(result.found) is None else None

    async def made(self, question: Question, *, anew: bool = False) -> tuple[Result, bool]:
        """A prediction, and whether it was stored.

        Args:
            question: that names a card, as the table of cards does.
            anew: make it, whatever is stored.

        Raises:
            ChildFailed: nothing can be predicted.
            StoreError: the store cannot be written.
        """
        async with self._architect.turn:
            # Perhaps made for somebody else while this one waited.
            if not anew and (stored := await self.stored(question)) is not None:
                return stored, True
            found = await self._architect.predicted(question)
        if (complaint := _complaint(found)) is not None:
            raise ChildFailed("died", f"what was predicted is no result: {complaint}")
        asked = question.model_dump(mode="json")
        key, what = self.key(question), CardPrediction.what
        kept = await self._database.call(self._database.keep, key, asked, found, what)
        return kept, False


def _complaint(found: object) -> str | None:
    """Why something is no prediction."""
    try:
        CardPrediction.model_validate(found)
    except (ValidationError, RecursionError) as error:
        return " ".join(str(error).split())[:200]
    return None
