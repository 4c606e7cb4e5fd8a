"""The server process: uvicorn, which says where it listens. Loads no torch."""

from __future__ import annotations

import socket

import structlog
import uvicorn

log = structlog.get_logger("layerbench.service")


class _Server(uvicorn.Server):
    """Says in the service's log where it listens, also where any free port was asked for."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                log.info("listening", documentation=f"http://{host}:{port}/docs")


def serve(config: uvicorn.Config) -> bool:
    """Serve until asked to end; gives whether it began at all."""
    server = _Server(config)
    server.run()
    return server.started
