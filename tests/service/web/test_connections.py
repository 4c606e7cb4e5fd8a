"""Connections that send slowly, never, or read nothing, and those beside them."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections.abc import Awaitable, Callable

import pytest
import uvicorn

from layerbench.service.web import connections
from layerbench.service.web import log as log_module
from layerbench.service.web.connections import Connection, limit_of, more_descriptors, of_server
from layerbench.service.web.settings import Settings

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = {
    "nothing": b"",
    "half a header": HEAD + b"X-Slow: ",
    "half a body": HEAD + b"Content-Length: 100\r\n\r\nhalf",
    "half a second request": REQUEST + HEAD,
}
LONG = b"x" * 2**20
Dial = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(connections, "LOOK_S", 0.02)


async def application(scope, receive, send):
    """Answers what it was sent; what ``/wait`` asks for never comes, and ``/long`` hardly ends."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/wait":
        await asyncio.Event().wait()
    length = [] if scope["path"] == "/long" else [(b"content-length", b"8")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if scope["path"] == "/long":
        for _ in range(100):
            await send({"type": "http.response.body", "body": LONG, "more_body": True})
    await send({"type": "http.response.body", "body": b"answered"})


def served(test: Callable[[Dial, connections.Connections], Awaitable[None]], **changes: object):
    """Run a test against a server of these settings."""

    async def run() -> None:
        settings = Settings(**{"connections": 16, "request_s": 0.3, **changes})
        config = uvicorn.Config(application, log_config=None, lifespan="off")
        state = uvicorn.Server(config).server_state
        everyone = of_server(state, settings)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        writers = []

        async def dial(sent: bytes = b"", address: str = "127.0.0.1", **options: int):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(address, 0), **options
            )
            writer.write(sent)
            writers.append(writer)
            return reader, writer

        await test(dial, everyone)
        for writer in writers:
            writer.close()
        for task in state.tasks:
            task.cancel()
        server.close()

    asyncio.run(asyncio.wait_for(run(), 30))


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends it."""
    try:
        return await reader.read(-1)
    except ConnectionResetError:
        return b""


async def answered(reader: asyncio.StreamReader) -> bool:
    return b" 200 OK" in await reader.readline()


async def held(everyone: connections.Connections, count: int) -> None:
    while len(everyone._open) < count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_a_request_that_does_not_come_is_given_up(sent):
    async def test(dial, everyone):
        reader, writer = await dial(sent)
        ends = asyncio.create_task(ended(reader))
        while not ends.done():
            # A byte now and then gains no time.
            if sent:
                writer.write(b"x")
            await asyncio.sleep(0.05)
        assert not everyone._open

    served(test)


def test_who_asks_again_and_again_is_not_given_up():
    async def test(dial, everyone):
        reader, writer = await dial()
        for _ in range(8):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 OK" in head
            await reader.readuntil(b"answered")
            await asyncio.sleep(0.06)

    served(test)


def test_who_waits_for_an_answer_is_not_given_up():
    async def test(dial, everyone):
        reader, _ = await dial(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ends = asyncio.create_task(ended(reader))
        await asyncio.sleep(0.8)
        assert not ends.done()

    served(test)


def test_a_new_connection_takes_the_place_of_the_oldest_that_asks_nothing():
    async def test(dial, everyone):
        first, *_ = [(await dial(SLOW["half a header"]))[0] for _ in range(16)]
        await held(everyone, 16)
        reader, _ = await dial(REQUEST)
        assert await answered(reader)
        assert await ended(first) == b""
        assert len(everyone._open) == 16
        # One that was answered before stays for longer than those that never asked.
        for _ in range(16):
            await dial()
            await asyncio.sleep(0.01)
        assert reader._transport is not None
        assert not reader.at_eof()

    served(test, request_s=20.0)


def test_of_two_addresses_the_one_with_most_gives_up_its_place():
    async def test(dial, everyone):
        other, _ = await dial(SLOW["half a header"], address="127.0.0.2")
        many = [(await dial(SLOW["half a header"]))[0] for _ in range(15)]
        await held(everyone, 16)
        for _ in range(8):
            reader, _ = await dial(REQUEST)
            assert await answered(reader)
        assert await ended(many[0]) == b""
        assert not other.at_eof()
        assert everyone._waiting[False].keys() == {"127.0.0.1", "127.0.0.2"}

    served(test, request_s=20.0)


def test_where_all_wait_for_answers_a_new_one_is_told_to_come_again():
    async def test(dial, everyone):
        for _ in range(16):
            await dial(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while any(everyone._waiting):
            await asyncio.sleep(0.01)
        await held(everyone, 16)
        reader, _ = await dial(REQUEST)
        head, _, body = (await ended(reader)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in head
        assert "come again" in json.loads(body)["detail"]
        assert len(everyone._open) == 16

    served(test)


def test_an_answer_that_nobody_reads_is_given_up():
    async def test(dial, everyone):
        _, writer = await dial(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n", limit=1024)
        writer.transport.pause_reading()
        await held(everyone, 1)
        while everyone._open:
            await asyncio.sleep(0.02)

    served(test, reading_s=0.2)


def test_as_many_as_the_descriptors_allow(monkeypatch):
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: limits.__setitem__(0, found[0]))
    assert limit_of(Settings()) == 1024 - connections.HEADROOM
    more_descriptors(Settings())
    assert limits == [2048 + connections.HEADROOM, 4096]
    assert limit_of(Settings()) == 2048
    limits[:] = [64, 64]
    more_descriptors(Settings())
    assert limit_of(Settings()) == connections.FEWEST


def test_what_a_library_says_again_and_again_is_one_line_of_json(capsys):
    log_module.configure_log()
    handler = log_module._Handler(logging.WARNING)
    library = logging.Logger("some")
    library.addHandler(handler)
    for number in range(1000):
        library.warning("socket %d\ncannot be accepted", number)
    try:
        raise OSError("no descriptors")
    except OSError:
        library.exception("something else")
    handler._last.clear()
    library.warning("socket %d\ncannot be accepted", 1000)
    log_module.drain_log()
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first, other, last = (one for one in said if "source" in one)
    assert (first["event"], first["source"]) == ("socket 0\ncannot be accepted", "some")
    assert "no descriptors" in other["exception"]
    assert last["left_out"] == 999


def test_an_answer_is_sent_in_one_piece():
    """Its head and body: a client on a busy machine waits for a core at each piece."""

    async def test(dial, everyone):
        reader, writer = await dial()
        (one,) = everyone._open
        sent, send = [], one.transport._transport.write
        one.transport._transport.write = lambda data: (sent.append(bytes(data)), send(data))
        writer.write(REQUEST)
        await reader.readuntil(b"answered")
        (piece,) = sent
        assert piece.startswith(b"HTTP/1.1 200 ")
        assert piece.endswith(b"answered")

    served(test)


def test_an_answer_is_sent_before_the_application_goes_on():
    """A request is counted and logged after its answer, and the client need not wait for that."""

    async def test(dial, everyone):
        _, writer = await dial()
        (one,) = everyone._open
        sent, before = [], []
        answers, one.transport._transport.write = one._application, sent.append

        async def counted(scope, receive, send):
            await answers(scope, receive, send)
            before.append(len(sent))

        one._application = counted
        writer.write(REQUEST)
        while not before:
            await asyncio.sleep(0.01)
        assert before == [1]

    served(test)
