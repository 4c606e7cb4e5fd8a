"""What the estimation service bears: stored, slow, queue, sampling, intervals.

stored     latency of stored answers at a fixed rate of requests, while a measurement runs. Each is
           due at a moment of its own, and its latency counts from then: one that waits for another
           counts its wait. The requests come from another process of the same machine.
slow       latency of stored answers at 50 a second beside 2,000 connections that send slowly or
           nothing, from a third process, and what the log grows by; also with 1,024 descriptors;
           and beside 48,000 requests that are sent before the first answer is read.
queue      100 identical questions at once, and 500 different ones, on a measuring process that
           measures nothing: what becomes of each.
sampling   a training step with looks at the hardware ten times a second, against one without, in
           stretches of half a second in turn.
intervals  the same question measured again and again: how often a figure lies in the interval of
           the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import torch
from tabulate import tabulate
from torchvision.models import resnet18

from layerbench.environment import devices
from layerbench.instruments.utilization import UsageSampler
from tests.support.service_process import server

REAL = "layerbench.service.worker.process"
RESOURCE = "/api/v1/estimate-resource"
QUESTION = {
    "task_type": "classification",
    "architecture": "resnet18",
    "batch_size": 2,
    "image_size": [64, 64],
}
ASYNC = {"Prefer": "respond-async"}
CONNECTIONS = 16
# From a job's start until torch is loaded and steps are run.
BEGINNING_S = 15.0
# Connections that send slowly, and stored answers a second beside them.
SLOW, SLOW_RATE = 2000, 50
# Requests that are sent before any answer is read, on so many connections.
PIPELINED, PIPELINES = 48_000, (1, 48, 1000)
# Of the comparison of stretches.
RESAMPLES = 2000
LOOKED_AT = "with looks"
WAYS = ["without", "without, once more", LOOKED_AT]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--seconds", type=float, default=30.0, help="of requests, of stretches")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--repeats", type=int, default=10, help="of a measurement")
    given = parser.parse_args()
    for what in given.what or BENCHMARKS:
        BENCHMARKS[what](given)


def print_table(rows: list[list[Any]], columns: list[str]) -> None:
    print(tabulate(rows, columns, disable_numparse=True), end="\n\n", flush=True)


# --- stored answers ------------------------------------------------------------------------


def stored(given: argparse.Namespace) -> None:
    rows = []
    for measuring in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            seconds = str(BEGINNING_S + given.seconds * 2)
            with server(
                Path(folder), LAYERBENCH_SERVE_CHILD=REAL, LAYERBENCH_SERVE_SECONDS="0.5"
            ) as (_, url):
                store_answer(url)
            # Through a pipe each line of the log would wake this process before its answer comes.
            with server(
                Path(folder),
                log=Path(folder) / "log",
                LAYERBENCH_SERVE_CHILD=REAL,
                LAYERBENCH_SERVE_SECONDS=seconds,
            ) as (_, url):
                # Until a measuring process has told what there is.
                httpx.get(url + "/api/v1/models", timeout=300).raise_for_status()
                if measuring:
                    begin_measuring(url)
                latencies = asyncio.run(answered_at(url, given.rate, given.seconds))
                still = httpx.get(url + "/metrics").text
                assert ("layerbench_jobs_running 1.0" in still) == measuring
        figures = np.percentile(latencies, [50, 90, 99, 99.9]) * 1e3
        rows.append(
            [
                "a measurement" if measuring else "nothing",
                len(latencies),
                *(f"{figure:.1f}" for figure in (*figures, max(latencies) * 1e3)),
            ]
        )
    print(f"Stored answers, {given.rate:g} a second; latency in ms")
    print_table(rows, ["meanwhile", "answers", "median", "p90", "p99", "p99.9", "most"])


def store_answer(url: str, asked: dict[str, Any] = QUESTION) -> None:
    """Ask until the answer is a stored one: what was measured on a busy machine is not."""
    while True:
        answer = httpx.post(url + RESOURCE, json=asked, timeout=300).raise_for_status()
        if answer.json()["about"]["stored"]:
            return


def begin_measuring(url: str) -> None:
    """A training step on all cores, for longer than the requests take."""
    big = {**QUESTION, "architecture": "resnet50", "batch_size": 4, "image_size": [224, 224]}
    where = httpx.post(url + RESOURCE, json=big, headers=ASYNC).headers["Location"]
    while httpx.get(url + where).json()["state"] != "running":
        time.sleep(0.1)
    time.sleep(BEGINNING_S)


async def answered_at(url: str, rate: float, seconds: float, *asked: dict[str, Any]) -> list[float]:
    """Seconds from the moment that each request was due to the end of its answer.

    The questions are asked in turn; without one it is always the same.
    """
    parts = urlsplit(url)
    requests = [_request(parts.netloc, one) for one in asked or [QUESTION]]
    due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    found: list[float] = []
    workers = [
        asyncio.create_task(_connection(str(parts.hostname), int(parts.port or 0), due, found))
        for _ in range(CONNECTIONS)
    ]
    begins = time.perf_counter()
    for number in range(int(rate * seconds)):
        moment = begins + number / rate
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        due.put_nowait((moment, requests[number % len(requests)]))
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    return found


def _request(host: str, asked: dict[str, Any]) -> bytes:
    body = json.dumps(asked).encode()
    return (
        f"POST {RESOURCE} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _connection(
    host: str, port: int, due: asyncio.Queue[tuple[float, bytes] | None], found: list[float]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while (next_one := await due.get()) is not None:
        moment, request = next_one
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
        found.append(time.perf_counter() - moment)
    writer.close()


# --- slow connections ----------------------------------------------------------------------


def slow(given: argparse.Namespace) -> None:
    rows = []
    for name, module, options, descriptors in (
        (f"{SLOW} slow connections", "slow_clients", [SLOW], None),
        (f"{SLOW} slow connections", "slow_clients", [SLOW], 1024),
        *(
            (f"{PIPELINED} requests at once on {count}", "pipelined_clients",
             [count, PIPELINED], None)
            for count in PIPELINES
        ),
    ):  # fmt: skip
        lines: list[str] = []
        with (
            tempfile.TemporaryDirectory() as folder,
            server(Path(folder), lines, descriptors) as (process, url),
        ):
            asked = {**QUESTION, "architecture": "quick"}
            httpx.post(url + RESOURCE, json=asked, timeout=300).raise_for_status()
            others = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}", str(urlsplit(url).port),
                 *map(str, options), str(given.seconds + 10)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert others.stdout is not None
            others.stdout.readline()
            latencies = asyncio.run(answered_at(url, SLOW_RATE, given.seconds, asked))
            said, _ = others.communicate(timeout=given.seconds + 60)
            memory = psutil.Process(process.pid).memory_info().rss
        figures = np.percentile(latencies, [50, 99]) * 1e3
        rows.append(
            [
                name,
                descriptors or "as many as it takes",
                len(latencies),
                *(f"{figure:.1f}" for figure in (*figures, max(latencies) * 1e3)),
                f"{sum(map(len, lines)) / 1e3:.0f} kB",
                f"{memory / 1e6:.0f} MB",
                said.strip().splitlines()[-1],
            ]
        )
    print(f"Stored answers, {SLOW_RATE} a second, beside other clients; latency in ms")
    print_table(
        rows,
        ["others", "descriptors", "answers", "median", "p99", "most", "log", "server", "they tell"],
    )


# --- the queue -----------------------------------------------------------------------------


def queue(given: argparse.Namespace) -> None:
    quick = {**QUESTION, "architecture": "slow"}
    rows = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (_, url):
        httpx.get(f"{url}/api/v1/models", timeout=60)
        for name, asked in (
            ("100 identical", [quick] * 100),
            ("500 different", [{**quick, "architecture": f"quick{n}"} for n in range(500)]),
        ):
            answers = asyncio.run(posted(url, asked))
            refused = [answer for answer in answers if answer.status_code == 429]
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
            jobs = {answer.json()["about"]["job"] for answer in answers if answer.is_success}
            statuses = Counter(answer.status_code for answer in answers)
            rows.append([name, statuses[200], len(jobs - {None}), len(refused),
                         len(asked) - statuses[200] - len(refused)])  # fmt: skip
    print("Questions at once")
    print_table(rows, ["questions", "answered", "measurements", "refused with 429", "neither"])


async def posted(url: str, asked: list[dict[str, Any]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=len(asked))
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        return await asyncio.gather(*(client.post(RESOURCE, json=body) for body in asked))


# --- looks at the hardware -----------------------------------------------------------------


def sampling(given: argparse.Namespace) -> None:
    torch.manual_seed(0)
    device = devices.get("cpu")
    model = resnet18()
    images = torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)

    def step() -> None:
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    stretch(step)
    rounds = []
    for _ in range(int(given.seconds / 1.5)):
        times = {}
        for way in random.sample(WAYS, len(WAYS)):
            if way == LOOKED_AT:
                with UsageSampler(device, 0.1, children=False):
                    times[way] = stretch(step)
            else:
                times[way] = stretch(step)
        rounds.append(times)
    print("A training step with looks ten times a second, against one without")
    print_table(
        [[way, len(rounds), *against_the_first(rounds, way)] for way in WAYS[1:]],
        ["way", "rounds", "median ratio", "95 % interval"],
    )


def against_the_first(rounds: list[dict[str, float]], way: str) -> list[str]:
    ratios = [times[way] / times[WAYS[0]] for times in rounds]
    middles = [statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
    low, high = np.percentile(middles, [2.5, 97.5])
    return [f"{statistics.median(ratios):.4f}", f"{low:.4f} to {high:.4f}"]


def stretch(step: Callable[[], None], seconds: float = 0.5) -> float:
    """The mean seconds of a step, over half a second."""
    begins = time.perf_counter()
    count = 0
    while time.perf_counter() - begins < seconds:
        step()
        count += 1
    return (time.perf_counter() - begins) / count


# --- intervals -----------------------------------------------------------------------------


def intervals(given: argparse.Namespace) -> None:
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder), LAYERBENCH_SERVE_CHILD=REAL, LAYERBENCH_SERVE_SECONDS="3") as (_, url),
    ):
        for route in ("estimate-resource", "estimate-training-time", "estimate-inference-time"):
            where = f"{url}/api/v1/{route}?refresh=true"
            found = [
                httpx.post(where, json=QUESTION, timeout=300).json() for _ in range(given.repeats)
            ]
            for name in found[0]["about"]["interval"]:
                # One that no measurement is behind is the same each time.
                if found[0]["about"]["method"][name] == "measured":
                    rows.append([route, name, *told_again(found, name)])
    print(
        "A figure measured again in a process of its own: is it in the interval of the one before?"
    )
    print_table(
        rows, ["route", "figure", "held", "spread from process to process", "half an interval"]
    )


def told_again(found: list[dict[str, Any]], name: str) -> list[str]:
    values = [
        {**answer, **answer.get("parts", {}), **answer.get("Batch Time", {})}[name]
        for answer in found
    ]
    bounds = [answer["about"]["interval"][name] for answer in found]
    held = sum(low <= value <= high for (low, high), value in zip(bounds, values[1:], strict=False))
    widths = [(high - low) / 2 / value for (low, high), value in zip(bounds, values, strict=True)]
    return [
        f"{held} of {len(values) - 1}",
        f"{np.log(values).std(ddof=1):.1%}",
        f"{statistics.median(widths):.1%}",
    ]


BENCHMARKS = {
    "stored": stored,
    "slow": slow,
    "queue": queue,
    "sampling": sampling,
    "intervals": intervals,
}

if __name__ == "__main__":
    main()
