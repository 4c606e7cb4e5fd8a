"""Two web processes with one PostgreSQL database: stored, queue.

stored  latency of stored answers from a million results, at a fixed rate, half of it from each
        process. Each request asks for another of them, at random, and is due at a moment of its
        own; its latency counts from then. The requests come from a third process. Before them, the
        same of a loop of some milliseconds with nothing else running: what the machine itself adds.
queue   500 different questions, each asked of both processes at once, on a measuring process that
        measures nothing: how many were measured, and how often.

    python -m benchmarks.shared_store

PostgreSQL runs with the settings that it comes with, in a folder of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Annotated, Any, cast

import httpx
import numpy as np
import psycopg
import typer

from benchmarks.service import ASYNC, QUESTION, RESOURCE, answered_at, print_table
from layerbench.service.protocol.questions import Question
from layerbench.service.web.job_keys import JobKeys
from layerbench.service.web.model_catalog import Catalog
from tests.support import postgresql, service_child
from tests.support.service_process import server

PROCESSES = 2
# Other questions a second than the answers that a web process keeps as it sent them.
SIDES = 1000
DIFFERENT, AT_ONCE = 500, 50
# What an answer takes, of all processes.
LOOP_S = 3e-3

app = typer.Typer(help=__doc__, add_completion=False)


@contextmanager
def processes(folder: Path, url: str, **variables: str) -> Iterator[list[str]]:
    """The addresses of web processes that know their device."""
    with ExitStack() as stack:
        urls = [
            stack.enter_context(
                server(folder, log=folder / f"log{number}", database=url, **variables)
            )[1]
            for number in range(PROCESSES)
        ]
        for one in urls:
            httpx.get(f"{one}/api/v1/models", timeout=120).raise_for_status()
        yield urls


@contextmanager
def database() -> Iterator[tuple[postgresql.Server, str]]:
    """A server of its own, and the address of a database in it."""
    found = postgresql.Server(options=())
    try:
        yield found, found.url(found.database())
    finally:
        found.remove()


def question(number: int) -> dict[str, Any]:
    """One of a million."""
    batch, side = divmod(number, SIDES)
    return {**QUESTION, "architecture": "quick", "batch_size": batch + 1,
            "image_size": [1, side + 1]}  # fmt: skip


def filled(url: str, count: int) -> None:
    """Copy the one result that is there to those of so many questions, with a job for each."""
    catalog = cast(Catalog, SimpleNamespace(device_of=lambda _: "cpu"))
    keys = JobKeys(catalog, (), "")
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT key, found FROM results").fetchone()
        assert row is not None
        known, found = row
        assert known == keys.key(Question.model_validate(question(0)))
        now = time.time() - count
        columns = "(key, question, found, measured_at) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(f"COPY results {columns}") as copy:
            for number in range(1, count):
                asked = Question.model_validate(question(number))
                content = json.dumps(asked.model_dump(mode="json"))
                copy.write_row((keys.key(asked), content, found, now + number))
        connection.execute(
            "INSERT INTO jobs (id, key, question, state, created_at, started_at, ended_at) "
            "SELECT md5(key), key, question, 'done', measured_at - 1, measured_at - 1, measured_at "
            "FROM results ON CONFLICT DO NOTHING"
        )
        # As it is after a while: by itself PostgreSQL would do it while answers are timed.
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def loops(rate: float, seconds: float) -> list[float]:
    """Seconds from the moment that each loop was due to its end, on one core of an idle machine.

    The same number of rounds each time: what takes longer than others was held up by the machine.
    """
    rounds, took = 1000, 0.0
    while took < LOOP_S:
        rounds *= 2
        took = float(np.median([_loop(rounds) for _ in range(20)]))
    rounds = int(rounds * LOOP_S / took)
    latencies = []
    begins = time.perf_counter()
    for number in range(int(rate * seconds)):
        moment = begins + number / rate
        time.sleep(max(0.0, moment - time.perf_counter()))
        _loop(rounds)
        latencies.append(time.perf_counter() - moment)
    return latencies


def _loop(rounds: int) -> float:
    begins = time.perf_counter()
    for _ in range(rounds):
        pass
    return time.perf_counter() - begins


@app.command()
def stored(
    results: Annotated[int, typer.Option(help="Stored results.")] = 1_000_000,
    rate: Annotated[float, typer.Option(help="Requests a second, of both processes.")] = 200.0,
    seconds: Annotated[float, typer.Option(help="Of requests.")] = 30.0,
) -> None:
    """Latency of stored answers."""
    _print_latencies("a loop alone", loops(rate / PROCESSES, seconds))
    with TemporaryDirectory() as name, database() as (postgres, url):
        folder = Path(name)
        with processes(folder, url) as urls:
            httpx.post(urls[0] + RESOURCE, json=question(0), timeout=300).raise_for_status()
        began = time.perf_counter()
        filled(url, results)
        query = "SELECT pg_size_pretty(pg_database_size(current_database()))"
        ((size,),) = postgres.run(query, url)
        print(f"{results} results made in {time.perf_counter() - began:.0f} s, {size}", flush=True)
        chosen = [question(random.randrange(results)) for _ in range(int(rate * seconds))]
        with processes(folder, url) as urls:
            share = len(chosen) // PROCESSES

            async def asked() -> list[list[float]]:
                return await asyncio.gather(*(
                    answered_at(one, rate / PROCESSES, seconds, *chosen[n * share :][:share])
                    for n, one in enumerate(urls)
                ))  # fmt: skip

            # The first statements of a connection are prepared, and pages are read from the disk.
            for meanwhile in ("the first time", "once more"):
                latencies = [one for part in asyncio.run(asked()) for one in part]
                told = (
                    f"{results} stored, {rate:g} a second from {PROCESSES} processes, {meanwhile}"
                )
                _print_latencies(told, latencies)


def _print_latencies(told: str, latencies: list[float]) -> None:
    figures = np.percentile(latencies, [50, 90, 99, 99.9, 100]) * 1e3
    print_table(
        [[told, len(latencies), *(f"{figure:.1f}" for figure in figures)]],
        ["ms", "answers", "median", "p90", "p99", "p99.9", "most"],
    )


@app.command()
def queue() -> None:
    """Different questions, each asked of both processes."""
    with TemporaryDirectory() as name, database() as (postgres, url):
        folder = Path(name)
        noted = folder / "started"
        variables = {service_child.STARTED: str(noted), "LAYERBENCH_SERVE_QUEUE": "1000"}
        with processes(folder, url, **variables) as urls:
            asked = [{**QUESTION, "architecture": f"quick{n}"} for n in range(DIFFERENT)]
            began = time.perf_counter()
            answers = asyncio.run(posted(urls, asked))
            took = time.perf_counter() - began
            ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
            states: Counter[str] = Counter()
            while sum(states[state] for state in ("done", "failed", "interrupted")) < len(ids):
                time.sleep(2)
                rows = postgres.run("SELECT state, count(*) FROM jobs GROUP BY state", url)
                states = Counter({str(state): int(str(count)) for state, count in rows})
            ends = time.perf_counter() - began
            measured = Counter(line.split()[0] for line in noted.read_text().splitlines())
            lists = [
                hashlib.sha256(httpx.get(f"{one}/api/v1/results?limit=500", timeout=60).content)
                for one in urls
            ]
            assert lists[0].digest() == lists[1].digest()
    print(f"{len(answers)} requests answered in {took:.1f} s, all measured after {ends:.0f} s")
    print_table(
        [[len(asked), len(answers), len(ids), states["done"], len(measured),
          max(measured.values())]],
        ["questions", "requests", "jobs", "done", "measured", "most often measured"],
    )  # fmt: skip


async def posted(urls: list[str], asked: list[dict[str, Any]]) -> list[httpx.Response]:
    # httpx looks through all that waits for a connection, again and again.
    turns = asyncio.Semaphore(AT_ONCE)
    # A connection each: one that is used again may just be closed.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:

        async def sent(url: str, body: dict[str, Any]) -> httpx.Response:
            async with turns:
                return await client.post(url + RESOURCE, json=body, headers=ASYNC)

        return await asyncio.gather(*(sent(one, body) for body in asked for one in urls))


if __name__ == "__main__":
    app()
