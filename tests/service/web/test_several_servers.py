"""Several web processes with one PostgreSQL database: nothing lost, nothing measured twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support import postgresql, service_child
from tests.support.service_process import server, until
from tests.support.serving import ASYNC, RESOURCE, RESULTS, alive, question
from tests.support.viewing import PROFILES, PROGRESS, events

JOBS = "/api/v1/jobs"


class Together:
    """Servers in processes of their own, with one database and one device."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack, self._folder = stack, folder
        self.url = postgresql.store()
        self.pipe, self._noted = folder / "script", folder / "started"
        os.mkfifo(self.pipe)
        self._noted.touch()
        self.processes = []
        self.clients: list[httpx.Client] = []

    def begin(self, count: int) -> None:
        variables = {
            service_child.STARTED: str(self._noted),
            service_child.SCRIPT: str(self.pipe),
            "LAYERBENCH_SERVE_LOST_S": "1.5",
            "LAYERBENCH_SERVE_QUEUE": "100",
        }
        with ThreadPoolExecutor(count) as pool:
            begun = [
                pool.submit(
                    self._stack.enter_context,
                    server(self._folder, database=self.url, **variables),
                )
                for _ in range(count)
            ]
        for process, url in (one.result() for one in begun):
            self.processes.append(process)
            client = httpx.Client(base_url=url, timeout=60)
            self.clients.append(self._stack.enter_context(client))
            assert client.get("/api/v1/models").status_code == 200

    def started(self) -> list[str]:
        """What measuring processes noted: architecture and process."""
        return self._noted.read_text().splitlines()

    def posted(self, asked: list[dict[str, object]]) -> list[httpx.Response]:
        """Each question to each server, all at once."""
        every = [(client, one) for one in asked for client in self.clients]
        with ThreadPoolExecutor(len(every)) as pool:
            return list(pool.map(lambda one: one[0].post(RESOURCE, json=one[1]), every))

    def ended(self, client: httpx.Client, id: str) -> dict[str, object]:
        until(lambda: client.get(f"{JOBS}/{id}").json()["state"] not in ("queued", "running"))
        return client.get(f"{JOBS}/{id}").json()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Iterator[Together]:
    with ExitStack() as stack:
        found = Together(tmp_path_factory.mktemp("together"), stack)
        found.begin(2)
        yield found


def test_identical_questions_to_two_servers_are_measured_once(together):
    before = len(together.started())
    found = together.posted([question("slow")] * 50)
    assert Counter(answer.status_code for answer in found) == {200: 100}
    assert len(together.started()) == before + 1
    assert len({answer.json()["about"]["job"] for answer in found} - {None}) == 1
    # Whoever comes later is answered from the store, wherever it was measured.
    for client in together.clients:
        assert client.post(RESOURCE, json=question("slow")).json()["about"]["stored"]


@pytest.mark.slow
def test_different_questions_to_two_servers_are_each_measured_once(together):
    before = len(together.started())
    asked = [question("brief", batch_size=number) for number in range(1, 7)]
    found = together.posted(asked)
    assert Counter(answer.status_code for answer in found) == {200: 12}
    assert len(together.started()) == before + 6
    listed = [client.get(RESULTS).json() for client in together.clients]
    assert listed[0] == listed[1]
    mine = [one for one in listed[0] if one["question"]["architecture"] == "brief"]
    assert {one["question"]["batch_size"] for one in mine} == set(range(1, 7))
    # Also with two servers the device does one thing at a time.
    spans = sorted((one["found"]["began_at"], one["found"]["ended_at"]) for one in mine)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def told(client: httpx.Client, id: str, pool: ThreadPoolExecutor):
    """What a server says of a job, event by event, until its end."""

    def read() -> list[tuple[str, dict[str, object]]]:
        with client.stream("GET", f"{JOBS}/{id}/events", timeout=60) as answer:
            return list(events(answer.iter_lines()))

    return pool.submit(read)


def test_both_servers_tell_the_news_of_a_job(together):
    rows = [[f"layer{number}", 0.5, 0.25] for number in range(500)]
    first, second = together.clients
    id = first.post(f"{PROFILES}?refresh=true", json={"architecture": "told"}).json()["id"]
    with ThreadPoolExecutor(2) as pool, together.pipe.open("w", buffering=1) as script:
        reading = [told(client, id, pool) for client in (first, second)]
        script.write(f"{json.dumps(PROGRESS)}\n")
        # More than one message of PostgreSQL holds.
        news = {"kind": "rows", "rounds": 3, "final": False, "rows": rows}
        script.write(f"{json.dumps(news)}\n")
        # Both have heard of it: a new listener is told all that is known.
        for client in (first, second):
            with client.stream("GET", f"{JOBS}/{id}/events", timeout=60) as answer:
                seen: dict[str, object] = {}
                for kind, content in events(answer.iter_lines()):
                    if kind == "rows":
                        seen |= {row[0]: row for row in content["rows"]}
                    if len(seen) == len(rows):
                        break
        script.close()
        for one in reading:
            heard = one.result(timeout=30)
            assert heard[-1] == ("state", {"state": "done", "reason": "", "ahead": 0})
            assert ("progress", {k: v for k, v in PROGRESS.items() if k != "kind"}) in heard
            assert sum(len(content["rows"]) for kind, content in heard if kind == "rows") >= 500
    documents = [client.get(f"{JOBS}/{id}/document").content for client in (first, second)]
    assert documents[0] == documents[1]


def test_a_job_is_cancelled_by_way_of_either_server(together):
    for client in together.clients:
        before = len(together.started())
        id = client.post(RESOURCE, json=question("hang"), headers=ASYNC).json()["id"]
        until(lambda before=before: len(together.started()) > before)
        pid = int(together.started()[-1].split()[1])
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(one.post, RESOURCE, json=question("hang")) for one in
                       together.clients]  # fmt: skip
            time.sleep(0.3)
            assert client.delete(f"{JOBS}/{id}").json()["state"] == "cancelled"
            for one in waiting:
                answer = one.result(timeout=20)
                assert answer.status_code == 409
                assert answer.json()["detail"] == "cancelled on request"
        until(lambda pid=pid: not alive(pid))


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_measures(together):
    together.begin(1)
    before = len(together.started())
    id = together.clients[0].post(RESOURCE, json=question("hang"), headers=ASYNC).json()["id"]
    until(lambda: len(together.started()) > before)
    parents = psutil.Process(int(together.started()[-1].split()[1])).parents()
    owner = next(
        number
        for number, process in enumerate(together.processes)
        if process.pid in [one.pid for one in parents]
    )
    killed, process = together.clients.pop(owner), together.processes.pop(owner)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(together.clients[0].post, RESOURCE, json=question("hang"))
        waiting = killed.post(RESOURCE, json=question(), headers=ASYNC).json()["id"]
        process.send_signal(signal.SIGKILL)
        answer = hung.result(timeout=30)
    assert (answer.status_code, "ended, or lost the database" in answer.text) == (409, True)
    for client in together.clients:
        assert client.get(f"{JOBS}/{id}").json()["state"] == "interrupted"
        assert together.ended(client, waiting)["state"] == "done"
    assert [line.split()[0] for line in together.started()[before:]] == ["hang", "quick"]
    assert together.clients[1].post(RESOURCE, json=question()).json()["about"]["stored"]
