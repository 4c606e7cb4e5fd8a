"""Connections with deadlines and a limit: a client that sends slowly, or never, holds nobody up.

A request has to be there, head and body, within a time from its first byte. An answer that nobody
reads is given up. Where there are as many connections as there may be, a new one takes the place of
one that has not sent a whole request, of the address that has most of those. Loads no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from typing import Any
from weakref import WeakKeyDictionary

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from layerbench.service.settings import Settings

log = structlog.get_logger("layerbench.service")

# Descriptors kept free for the store, measuring processes and connections that are being accepted.
HEADROOM = 128
# Accepted at once, before any of them is looked at: far fewer than `HEADROOM`, and so few that
# those who have been accepted do not wait for long.
ACCEPTED_AT_ONCE = 8
# That may wait in the kernel to be accepted.
BACKLOG = 1024
# At least so many connections, however few descriptors there are.
FEWEST = 16
LOOK_S = 1.0
# Given up at once; the next after a moment in which others are answered.
GIVEN_UP_AT_ONCE, MOMENT_S = 8, 0.02

_DETAIL = b'{"detail": "every connection that there may be is waiting: come again later"}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_DETAIL), _DETAIL)
)


def limit_of(settings: Settings) -> int:
    """Connections that may be open at once, as many as the process's descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.connections
    return max(FEWEST, min(settings.connections, soft - HEADROOM))


class Connections:
    """All connections of one server.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self.request_s = settings.request_s
        self.reading_s = settings.reading_s
        self._limit = limit_of(settings)
        self._open: set[Connection] = set()
        # Without a whole request, by the address that they come from, the oldest first; those that
        # have been answered before apart, since they are given up last.
        self._waiting: tuple[_ByAddress, _ByAddress] = ({}, {})
        self._closed = 0
        self._said_at = -math.inf
        self._look: asyncio.TimerHandle | None = None

    def opened(self, connection: Connection) -> bool:
        """Take a new connection in, in place of another one if need be; whether there is room."""
        if self._look is None:
            self._look = connection.loop.call_later(LOOK_S, self._look_around)
        if len(self._open) >= self._limit and not self._make_room():
            self._closed += 1
            return False
        self._open.add(connection)
        return True

    def lost(self, connection: Connection) -> None:
        """Forget one."""
        self._open.discard(connection)
        self.busy(connection)

    def waits(self, connection: Connection) -> None:
        """Note that one has no whole request (any more)."""
        by_address = self._waiting[connection.answered]
        by_address.setdefault(connection.address, {})[connection] = None

    def busy(self, connection: Connection) -> None:
        """Note that one has a whole request, which is being answered, or is gone."""
        for by_address in self._waiting:
            waiting = by_address.get(connection.address)
            if waiting is None:
                continue
            waiting.pop(connection, None)
            if not waiting:
                del by_address[connection.address]

    def _make_room(self) -> bool:
        for by_address in self._waiting:
            if by_address:
                most = max(by_address, key=lambda address: len(by_address[address]))
                oldest = next(iter(by_address[most]))
                self._give_up(oldest)
                return True
        return False

    def _give_up(self, connection: Connection) -> None:
        self._closed += 1
        self.lost(connection)
        connection.transport.abort()

    def _look_around(self) -> None:
        """Once a second: give up those that are late, and say how many were given up."""
        now = asyncio.get_running_loop().time()
        late = [one for one in self._open if one.late(now)]
        for connection in late[:GIVEN_UP_AT_ONCE]:
            self._give_up(connection)
        if self._closed and now - self._said_at >= LOOK_S:
            log.warning("connections closed", count=self._closed, open=len(self._open))
            self._closed, self._said_at = 0, now
        self._look = None
        if self._open or self._closed:
            pause = MOMENT_S if len(late) > GIVEN_UP_AT_ONCE else LOOK_S
            self._look = asyncio.get_running_loop().call_later(pause, self._look_around)


class Connection(H11Protocol):
    """One connection: uvicorn's, with deadlines."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **options)
        self.answered = False
        self.address = ""
        self._all = of_server(self.server_state)
        self._deadline = math.inf
        self._idle = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it in, or say that there is no room."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self._all.opened(self):
            transport.write(UNAVAILABLE)
            transport.close()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._all.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the time for a request begins with its first byte."""
        if self.transport.is_closing():
            return
        if self._idle:
            self._idle = False
            self._deadline = self.loop.time() + self._all.request_s
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.answered:
            self._all.busy(self)
            self.answered = True
        if self._incomplete():
            self._wait()

    def pause_writing(self) -> None:
        """Give the client so long to read on."""
        super().pause_writing()
        self._deadline = self.loop.time() + self._all.reading_s

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._deadline = math.inf
        self._judge()

    def late(self, now: float) -> bool:
        """Whether it has had its time."""
        if self._deadline == math.inf and self.transport.is_closing():
            # What is still to be sent is sent, if somebody reads it.
            self._deadline = now + self._all.reading_s
        return now > self._deadline

    def _incomplete(self) -> bool:
        """Whether the request, or its body, is still to come."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _judge(self) -> None:
        if self._incomplete():
            if self._deadline == math.inf:
                self._wait()
        elif not self.flow.write_paused:
            self._deadline = math.inf
            self._all.busy(self)

    def _wait(self) -> None:
        """Until there is a whole request."""
        self._idle = self.conn.their_state is h11.IDLE
        self._deadline = self.loop.time() + self._all.request_s
        self._all.waits(self)


_ByAddress = dict[str, dict[Connection, None]]
_SERVERS: WeakKeyDictionary[ServerState, Connections] = WeakKeyDictionary()


def of_server(state: ServerState, settings: Settings | None = None) -> Connections:
    """The connections of a server; with settings of the surroundings where none are named."""
    found = _SERVERS.get(state)
    if found is None:
        found = _SERVERS[state] = Connections(settings or Settings())
    return found


def more_descriptors(settings: Settings) -> None:
    """As many as the settings' connections take, if the process may have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections + HEADROOM
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
