"""The server process: uvicorn, which says where it listens. Loads no torch."""

from __future__ import annotations

import socket
from collections.abc import Callable

import structlog
import uvicorn

log = structlog.get_logger("layerbench.service")


def _ignored(_: str) -> None:
    """What nobody wants to hear."""


class _Server(uvicorn.Server):
    """Says in the service's log where it listens, also where any free port was asked for."""

    def __init__(self, config: uvicorn.Config, told: Callable[[str], object]) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                log.info("listening", documentation=f"http://{shown}:{port}/docs")
                self._told(f"http://{shown}:{port}/")


def serve(config: uvicorn.Config, told: Callable[[str], object] = _ignored) -> bool:
    """Serve until asked to end; gives whether it began at all.

    Args:
        config: of the server.
        told: hears each address once it is listened at.
    """
    server = _Server(config, told)
    server.run()
    return server.started
