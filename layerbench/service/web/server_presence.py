"""A server among those that share its database: it says that it lives, and buries who does not.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Collection

import structlog

from layerbench.service.web.database import Database, StoreError

log = structlog.get_logger("layerbench.service")

BEAT_S = 1.0


class Presence:
    """Of one server.

    Args:
        database: that others may have, too.
        lost_s: without a sign of life for so long, a server counts as lost.

    Attributes:
        id: of the server; another one at each start.
    """

    def __init__(self, database: Database, lost_s: float) -> None:
        self._database = database
        self._lost_s = lost_s
        self.id = uuid.uuid4().hex

    async def kept(
        self,
        targets: Callable[[], Collection[str]],
        look: Callable[[], Awaitable[None]],
        trouble: Callable[[StoreError], object],
    ) -> None:
        """Give a sign of life every second, for as long as this runs.

        Args:
            targets: where jobs can run that this server takes.
            look: is called after each sign.
            trouble: hears why the database cannot be reached.
        """
        call, host = self._database.call, socket.gethostname()
        since: float | None = None
        while True:
            try:
                await call(self._database.beat, self.id, host, targets())
                now = time.monotonic()
                since = now if since is None else since
                await look()
                # After the database was away, the others have time to say that they live.
                if now - since >= self._lost_s:
                    for lost in await call(self._database.bury, self._lost_s):
                        log.warning("a server is lost", host=lost)
            except StoreError as error:
                if since is not None:
                    log.warning("the database is away", reason=str(error))
                since = None
                trouble(error)
            await asyncio.sleep(BEAT_S)
