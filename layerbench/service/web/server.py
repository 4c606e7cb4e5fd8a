"""The server process: uvicorn, which says where it listens. Loads no torch."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from layerbench.errors import UsageError
from layerbench.service.web.connections import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    Connection,
    more_descriptors,
    of_server,
)
from layerbench.service.web.log import drain_log, take_over_all
from layerbench.service.web.settings import Settings

log = structlog.get_logger("layerbench.service")


def _ignored(_: str) -> None:
    """Ignore a message."""


class _Server(uvicorn.Server):
    """Logs the address that it listens on, also if the port was chosen by the system."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, on_address: Callable[[str], object]
    ) -> None:
        super().__init__(config)
        self._on_address = on_address
        of_server(self.server_state, settings)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at the first signal; later ones would skip what closes the jobs, for seconds."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        # What is there by now stays, and need not be looked through again while others wait.
        gc.collect()
        gc.freeze()
        for listening in sockets or ():
            # asyncio's one number says how many are accepted at once, too.
            listening.listen(BACKLOG)
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.info("listening", documentation=f"http://{shown}:{port}/docs")
            self._on_address(f"http://{shown}:{port}/")


class Running:
    """A server from its start to its end.

    Args:
        settings: of the server.
        on_address: hears each address once it is listened at.

    Attributes:
        refused: why it ended by itself, if it did.
    """

    def __init__(
        self, settings: Settings, on_address: Callable[[str], object] | None = None
    ) -> None:
        self._settings = settings
        self._on_address = on_address or _ignored
        self._server: _Server | None = None
        self.refused: str | None = None

    def refuse(self, reason: str) -> None:
        """End it: with these settings there is nothing that it could do."""
        self.refused = reason
        if self._server is not None:
            self._server.should_exit = True

    def _worth_saying(self, _: object) -> bool:
        """Whether uvicorn's line is needed: after a refusal the caller reports the reason."""
        return self.refused is None

    def serve(self, app: ASGIApp) -> bool:
        """Serve until stopped; returns whether it started.

        Raises:
            UsageError: it cannot listen where the settings say.
        """
        more_descriptors(self._settings)
        sockets = _bound(self._settings.host, self._settings.port)
        # What there is to say, our own log says. Who still waits for an answer at the end is not
        # waited for: a measurement may take minutes.
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            backlog=ACCEPTED_AT_ONCE,
            log_config=None,
            access_log=False,
            # A float does too: it goes to asyncio as it is.
            timeout_graceful_shutdown=self._settings.patience_s,  # type: ignore[arg-type]
        )
        take_over_all()
        uvicorns = logging.getLogger("uvicorn.error")
        uvicorns.addFilter(self._worth_saying)
        self._server = _Server(config, self._settings, self._on_address)
        try:
            self._server.run(sockets)
        finally:
            drain_log()
            uvicorns.removeFilter(self._worth_saying)
            for listening in sockets:
                listening.close()
        return self._server.started


def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets at every address of a host.

    Raises:
        UsageError: there is no such address, or somebody else has it.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, place in dict.fromkeys((one[0], one[4]) for one in addresses):
            # Named, since asyncio sends small parts at once (TCP_NODELAY) only where it is.
            sockets.append(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            _bind(sockets[-1], place)
    except (OSError, UnicodeError) as error:
        for opened in sockets:
            opened.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot listen at {host}, port {port}: {reason}; take another --port or --host"
        ) from None
    return sockets


def _bind(opened: socket.socket, place: tuple[Any, ...]) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(place)
    # Whether somebody listens there already is known only now.
    opened.listen(ACCEPTED_AT_ONCE)
    opened.setblocking(False)
