"""Whether the service could measure now, and why not. Loads no torch."""

from __future__ import annotations

import asyncio
import math
import time

import structlog

from layerbench.service.web.database import Database
from layerbench.service.web.job_queue import Jobs
from layerbench.service.web.model_catalog import Catalog

log = structlog.get_logger("layerbench.service")

# Between two readings of the whole store, which cost time with its size.
WHOLE_S = 60.0


class Health:
    """Looks at everything that a measurement needs.

    Args:
        jobs, database, catalog: of the server.
    """

    def __init__(self, jobs: Jobs, database: Database, catalog: Catalog) -> None:
        self._jobs = jobs
        self._database = database
        self._catalog = catalog
        # The store was read whole as it was opened.
        self._read_at = time.monotonic()
        self._damage: str | None = None
        self._reading = asyncio.Lock()
        self._last_reason: str | None = None

    def suspect(self) -> None:
        """Read the store whole the next time: something in it could not be read."""
        self._read_at = -math.inf

    async def complaint(self) -> str | None:
        """Why nothing can be measured now; ``None`` if it can. Said in the log once."""
        reason = (
            self._jobs.complaint
            or self._catalog.complaint_of_all
            or await self._database.call(self._database.complaint)
            or await self._damaged()
        )
        if reason is not None and reason != self._last_reason:
            log.error("not ready", reason=reason)
        self._last_reason = reason
        return reason

    async def _damaged(self) -> str | None:
        """What is wrong with the file.

        Read once another program has written into it; else now and then, and not beside a
        measurement.
        """
        async with self._reading:
            due = time.monotonic() - self._read_at >= WHOLE_S and self._jobs.idle
            if self._database.touched() or due:
                self._damage = await asyncio.to_thread(self._database.damage)
                self._read_at = time.monotonic()
        return self._damage
