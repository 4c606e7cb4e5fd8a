"""Connections with deadlines and a limit: a slow or silent client delays no other.

A request has to be there, head and body, within a time from its first byte. An answer that nobody
reads is given up. Where there are as many connections as there may be, a new one takes the place of
one that has not sent a whole request, of the address that has most of those. Requests that are sent
in advance are read as they are answered, and wait for the others. Loads no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import h11
import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from layerbench.service.web.request_turns import Spread, Turns
from layerbench.service.web.settings import Settings

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
# Read at once of a connection, so much of which is kept while earlier requests are answered.
READ_AT_ONCE = 2**16
# Written before it is sent: the rest of a long answer waits for a client that reads.
SENT_AT_ONCE = 2**16
# Given up at once; the next after a moment in which others are answered.
GIVEN_UP_AT_ONCE, MOMENT_S = 8, 0.02

RETRY_S = 5
_DETAIL = b'{"detail": "every connection that there may be is waiting: come again later"}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: %d\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (RETRY_S, len(_DETAIL), _DETAIL)
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
        self.turns = Turns()
        self.strangers = Spread()
        # By the address that they come from, the oldest first, in the order of being given up: with
        # requests sent in advance, without a whole one, and so but answered before.
        self._ahead: _ByAddress = {}
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
        _put(self._waiting[connection.answered], connection)

    def asks_ahead(self, connection: Connection) -> None:
        """Note that a connection has sent requests in advance and waits for its turn."""
        self.busy(connection)
        _put(self._ahead, connection)

    def busy(self, connection: Connection) -> None:
        """Note that a connection has sent a whole request, or has closed."""
        for by_address in (self._ahead, *self._waiting):
            waiting = by_address.get(connection.address)
            if waiting is None:
                continue
            waiting.pop(connection, None)
            if not waiting:
                del by_address[connection.address]

    def _make_room(self) -> bool:
        for by_address in (self._ahead, *self._waiting):
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
        self._behind = False
        # Whether it ever sent requests in advance, and what it sent that is still to be taken in.
        self._sent_ahead, self._unheard = False, bytearray()
        self._application: ASGIApp = self.app
        self.app = self._in_turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or answer that there are too many."""
        self._joined = Joined(transport, self.loop)
        transport = cast(asyncio.Transport, self._joined)
        super().connection_made(transport)
        self.flow = _Flow(transport, self.ahead)
        # A transport of another event loop may have no such number.
        transport.max_size = READ_AT_ONCE  # type: ignore[attr-defined]
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
        # No circle of references is left for the collector.
        self.app = self._application
        self.flow = FlowControl(self.transport)

    def data_received(self, data: bytes) -> None:
        """Read a known client's data immediately, and an unknown client's data in turn."""
        if self.answered and not (self._sent_ahead or self._unheard):
            self._hear(data)
            return
        # No more of this one until then.
        self.transport.pause_reading()
        self._unheard += data
        if len(self._unheard) == len(data):
            self._all.strangers.call(self._hear_later)

    def _hear_later(self) -> None:
        data = bytes(self._unheard)
        self._unheard.clear()
        self._hear(data)
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def _hear(self, data: bytes) -> None:
        """Take in what was sent; the time for a request begins with its first byte."""
        if self.transport.is_closing():
            return
        if self._idle:
            self._idle = False
            self._deadline = self.loop.time() + self._all.request_s
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """Send the answer, and wait for the next request."""
        # Now, and not at the end of this pass: before it is counted and logged.
        self._joined.send()
        super().on_response_complete()
        if not self.answered:
            self._all.busy(self)
            self.answered = True
        # What is whole by now was sent before the answer was.
        self._behind = not self._incomplete()
        if not self._behind:
            self._wait()
        # All that was sent in advance may be begun by now.
        self.flow.resume_reading()

    def ahead(self) -> bool:
        """Whether there are requests, or parts of them, behind the one that is being answered."""
        return self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0])

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application once it is this request's turn, if somebody is still there."""
        in_advance, self._behind = self._behind or self.ahead(), False
        try:
            if in_advance:
                self._sent_ahead = True
                self._all.asks_ahead(self)
            await self._all.turns.taken(self.address, in_advance)
        except asyncio.CancelledError:
            answer = {"detail": "the server is ending: ask again"}
            await JSONResponse(answer, 503, {"Retry-After": str(RETRY_S)})(scope, receive, send)
            return
        if self.transport.is_closing():
            # uvicorn learns of it a moment later, and would answer.
            self.cycle.disconnected = True
            return
        self._judge()
        await self._application(scope, receive, send)

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


class Joined:
    """A transport that sends all writes of an answer, or of a pass of the event loop, together.

    An answer is written as its head and its body. In two pieces each would wake the client, which
    waits for a core each time where a measurement keeps them busy.

    Args:
        transport: that sends.
        loop: of the connection.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._transport, name, value)

    def write(self, data: bytes) -> None:
        """Send together with other writes of this pass; immediately if they are large."""
        if not self._pieces:
            self._loop.call_soon(self.send)
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes >= SENT_AT_ONCE:
            self.send()

    def close(self) -> None:
        """Send what is written, then close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what is written."""
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if pieces:
            self._transport.write(b"".join(pieces))


class _Flow(FlowControl):
    """Reads no further while there is more than the request that is being answered.

    Args:
        transport: of the connection.
        ahead: tells whether there is.
    """

    def __init__(self, transport: asyncio.Transport, ahead: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def pause_reading(self) -> None:
        """Read no further; also where uvicorn has resumed without a word to this object."""
        self.read_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless there is enough to do."""
        if not self._ahead():
            self.read_paused = False
            self._transport.resume_reading()


_ByAddress = dict[str, dict[Connection, None]]
_SERVERS: WeakKeyDictionary[ServerState, Connections] = WeakKeyDictionary()


def of_server(state: ServerState, settings: Settings | None = None) -> Connections:
    """The connections of a server; with settings of the surroundings where none are named."""
    connections = _SERVERS.get(state)
    if connections is None:
        connections = _SERVERS[state] = Connections(settings or Settings())
    return connections


def _put(by_address: _ByAddress, connection: Connection) -> None:
    by_address.setdefault(connection.address, {})[connection] = None


def more_descriptors(settings: Settings) -> None:
    """As many as the settings' connections take, if the process may have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections + HEADROOM
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
