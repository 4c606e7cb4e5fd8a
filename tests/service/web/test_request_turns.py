"""Requests that are sent before earlier ones are answered, and the log of very many requests."""

from __future__ import annotations

import asyncio
import json

import structlog

from layerbench.service.web import connections
from layerbench.service.web import log as log_module
from layerbench.service.web.repeated_lines import OF_A_KIND, OF_ALL, Repeats
from layerbench.service.web.request_turns import AT_ONCE, Turns
from tests.service.web.test_connections import HEAD, REQUEST, ended, held, served

MANY = 2000
WITH_BODY = HEAD + b"Content-Length: 4\r\n\r\nbody"


def test_others_are_answered_beside_thousands_of_requests_sent_in_advance():
    async def test(dial, everyone):
        many = [(await dial(REQUEST * MANY, limit=2**24))[0] for _ in range(3)]
        reader, writer = await dial()
        for _ in range(20):
            writer.write(REQUEST)
            await reader.readuntil(b"answered")
        # Those who sent so many wait while another is answered.
        assert all(one._buffer.count(b"answered") < MANY / 4 for one in many)

    served(test, request_s=20.0)


def test_what_is_sent_in_advance_is_answered_in_order_and_wholly():
    async def test(dial, everyone):
        for sent in (REQUEST, WITH_BODY):
            reader, writer = await dial(sent * MANY, limit=2**24)
            await reader.readuntil(b"answered")
            (connection,) = everyone._open
            kept = []
            for _ in range(MANY - 1):
                await reader.readuntil(b"answered")
                kept.append(len(connection.conn.trailing_data[0]))
            # However much there is, no more is read than is being answered.
            assert max(kept) <= 2 * connections.READ_AT_ONCE
            # It goes on as if nothing had been.
            writer.write(REQUEST)
            await reader.readuntil(b"answered")
            writer.close()
            while everyone._open:
                await asyncio.sleep(0.01)

    served(test, request_s=20.0)


def test_a_new_connection_takes_the_place_of_one_that_sent_in_advance():
    async def test(dial, everyone):
        idle, _ = await dial()
        many = [(await dial(REQUEST * MANY, limit=2**24))[0] for _ in range(15)]
        await held(everyone, 16)
        while not everyone._ahead:
            await asyncio.sleep(0)
        reader, _ = await dial(REQUEST)
        await reader.readuntil(b"answered")
        ends = [asyncio.create_task(ended(one)) for one in many]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert not idle.at_eof()

    served(test, request_s=20.0)


def test_who_sent_in_advance_and_left_costs_nothing_more(caplog):
    async def test(dial, everyone):
        for _ in range(8):
            _, writer = await dial(REQUEST * MANY)
            writer.transport.abort()
        reader, writer = await dial(REQUEST)
        await reader.readuntil(b"answered")
        writer.close()
        while everyone._open:
            await asyncio.sleep(0.01)

    served(test)
    # Requests that are answered have lines of their own where another test turned these on.
    assert not [record for record in caplog.records if record.name != "uvicorn.access"]


def test_at_the_servers_end_who_waits_for_a_turn_is_told_to_ask_again():
    async def test(dial, everyone):
        reader, _ = await dial(REQUEST * MANY, limit=2**24)
        while not (waiting := [one for one in everyone._open if one in sum_of(everyone._ahead)]):
            await asyncio.sleep(0)
        for task in list(waiting[0].tasks):
            task.cancel()
        await reader.readuntil(b" 503 ")
        assert b"retry-after: 5" in (await reader.readuntil(b"\r\n\r\n")).lower()

    served(test, request_s=20.0)


def sum_of(by_address):
    return {one for connections in by_address.values() for one in connections}


def test_addresses_take_turns():
    async def run() -> list[str]:
        turns, order = Turns(), []

        async def ask(address: str) -> None:
            await turns.taken(address, False)
            order.append(address)

        many = [ask("a") for _ in range(5 * AT_ONCE)]
        await asyncio.gather(*many, ask("b"))
        return order

    assert asyncio.run(run()).index("b") <= 2 * AT_ONCE


def test_lines_of_a_kind_are_counted_and_the_count_is_said(capsys):
    log_module.configure_log()
    log = structlog.get_logger("layerbench.service")
    for number in range(1000):
        log.info("request", route="/some", status=403, seconds=number)
    log.info("request", route="/other", status=200)
    log_module.drain_log()
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    some = [one for one in said if one.get("route") == "/some"]
    assert len(some) == OF_A_KIND + 1
    assert sum(one.get("left_out", 1) for one in some) == 1000
    assert some[-1]["status"] == "403"
    assert [one["route"] for one in said].count("/other") == 1


def test_a_thousand_kinds_of_lines_do_not_fill_the_log():
    repeats = Repeats(lambda: None)
    passed = 0
    for number in range(5000):
        try:
            repeats(None, "info", {"event": f"{number % 1000}"})
            passed += 1
        except structlog.DropEvent:
            pass
    assert passed <= 300
    assert sum(one["left_out"] for one in repeats.left_out(whenever=True) or ()) == 5000 - passed
    assert passed >= OF_ALL
