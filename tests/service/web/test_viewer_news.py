"""What the viewer's routes say while things happen: the stream of news."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from layerbench.service.protocol.questions import EXAMPLE
from layerbench.service.web import viewer_routes
from layerbench.service.web.job_events import JobEvents
from tests.support import service_child
from tests.support.service_process import server, until
from tests.support.viewing import NOBODY, PROFILES, PROGRESS, events

RESOURCE = "/api/v1/estimate-resource"


TOLD = {"architecture": "told"}


FIRST = ["conv", 0.5, 0.5]


RUNNING = {"kind": "running", "path": "features.0"}


ROWS = {"kind": "rows", "rounds": 3, "final": False, "rows": [FIRST]}


def without_kind(event: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in event.items() if name != "kind"}


class Script:
    """What a profile of ``told`` does next; it waits for each line."""

    def __init__(self, pipe: Path) -> None:
        # Waits for the measuring process.
        self._file = pipe.open("w", buffering=1)

    def say(self, *events: dict[str, object]) -> None:
        for event in events:
            self._file.write(json.dumps(event) + "\n")

    def end(self) -> None:
        self._file.close()


class Live:
    """A server in a process of its own."""

    def __init__(self, url: str, pid: int, pipe: Path, started: Path) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)
        self.url, self.pid, self._pipe, self._started = url, pid, pipe, started
        self.folder = pipe.parent

    def ask(self, **changes: object) -> str:
        """A job that measures what a script says."""
        answer = self.client.post(f"{PROFILES}?refresh=true", json={**TOLD, **changes})
        assert answer.status_code == 202
        return answer.json()["id"]

    def script(self) -> Script:
        return Script(self._pipe)

    def started(self) -> list[str]:
        return self._started.read_text().splitlines()

    def state(self, id: str) -> str:
        return self.client.get(f"/api/v1/jobs/{id}").json()["state"]

    @contextmanager
    def news(self, id: str) -> Iterator[Iterator[tuple[str, dict[str, object]]]]:
        """Events as they come."""
        with httpx.stream("GET", f"{self.url}/api/v1/jobs/{id}/events", timeout=30) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield events(answer.iter_lines())


def running(news: Iterator[tuple[str, dict[str, object]]]) -> None:
    """Read until the job runs."""
    for name, said in news:
        assert name == "state"
        if said["state"] == "running":
            return
    raise AssertionError("it never ran")


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("viewer")
    pipe, started = folder / "script", folder / "started"
    os.mkfifo(pipe)
    started.touch()
    variables = {service_child.SCRIPT: str(pipe), service_child.STARTED: str(started)}
    with server(folder, **variables) as (process, url):
        yield Live(url, process.pid, pipe, started)


def test_news_come_in_the_order_in_which_they_happen_and_end_with_the_job(live):
    id = live.ask()
    with live.news(id) as news:
        running(news)
        script = live.script()
        for event in (PROGRESS, RUNNING, ROWS, {**RUNNING, "path": None}):
            script.say(event)
            assert next(news) == (event["kind"], without_kind(event))
        assert live.client.get(f"/api/v1/jobs/{id}/document").status_code == 409
        script.end()
        assert next(news) == ("state", {"state": "done", "reason": "", "ahead": 0})
        assert list(news) == []
    document = live.client.get(f"/api/v1/jobs/{id}/document")
    assert document.status_code == 200
    assert document.json()["rows"]["path"][:2] == ["", "features"]
    # What is stored is answered at once, and is the same.
    again = live.client.post(PROFILES, json=TOLD)
    assert (again.status_code, again.content) == (200, document.content)
    # Of a job that has ended there is one piece of news.
    with live.news(id) as news:
        assert list(news) == [("state", {"state": "done", "reason": "", "ahead": 0})]


def test_who_comes_late_is_told_what_is_known(live):
    id = live.ask()
    with live.news(id) as news, live.news(id) as other:
        running(news)
        running(other)
        script = live.script()
        second, later = ["bn", 0.25, 0.25], ["conv", 0.75, 0.5]
        script.say(ROWS, {**PROGRESS, "done": 1}, RUNNING, PROGRESS)
        script.say({**ROWS, "rounds": 4, "rows": [second, later]})
        for listener in (news, other):
            for name, said in listener:
                if name == "rows" and said["rounds"] == 4:
                    break
        with live.news(id) as late:
            known = [next(late) for _ in range(4)]
            assert known[:3] == [
                ("state", {"state": "running", "reason": "", "ahead": 0}),
                ("progress", without_kind(PROGRESS)),
                ("running", without_kind(RUNNING)),
            ]
            name, rows = known[3]
            assert (name, rows["rounds"], rows["final"]) == ("rows", 4, False)
            assert sorted(rows["rows"]) == sorted([later, second])
            script.end()
            for listener in (news, other, late):
                assert [said["state"] for name, said in listener if name == "state"] == ["done"]


@pytest.mark.slow
def test_a_job_that_waits_says_how_many_come_first(live):
    first, second = live.ask(), live.ask(batch_size=2)
    # Who asks for what is already being measured shares the job.
    assert live.ask(batch_size=2) == second
    with live.news(second) as news:
        assert next(news) == ("state", {"state": "queued", "reason": "", "ahead": 1})
        live.script().end()
        running(news)
        live.script().end()
        assert [said["state"] for _, said in news] == ["done"]
    assert live.state(first) == "done"


def test_cancelling_what_is_being_measured(live):
    before = len(live.started())
    id = live.ask()
    with live.news(id) as news:
        running(news)
        script = live.script()
        script.say(PROGRESS)
        next(news)
        (line,) = live.started()[before:]
        assert live.client.delete(f"/api/v1/jobs/{id}").json()["state"] == "cancelled"
        assert next(news)[1] == {
            "state": "cancelled",
            "reason": "cancelled on request",
            "ahead": 0,
        }
        assert list(news) == []
    until(lambda: not psutil.pid_exists(int(line.split()[1])))
    assert live.client.get(f"/api/v1/jobs/{id}/document").status_code == 409


def test_who_vanishes_and_who_never_reads_hold_nothing_up(live):
    id = live.ask()
    host, port = live.url.removeprefix("http://").split(":")
    deaf = socket.create_connection((host, int(port)))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = f"GET /api/v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    deaf.sendall(request.encode())
    with live.news(id) as news:
        running(news)
        script = live.script()
    # Far more than all buffers hold.
    rows = [[f"layer{number}", 0.5, 0.5] for number in range(2000)]
    with live.news(id) as news:
        for rounds in range(100):
            script.say({**ROWS, "rounds": rounds, "rows": rows})
        script.end()
        assert [said["state"] for name, said in news if name == "state"][-1] == "done"
    deaf.close()
    assert live.state(id) == "done"


def test_news_of_an_estimate(live):
    asked = {**EXAMPLE, "task_type": "classification", "architecture": "quick"}
    job = live.client.post(RESOURCE, json=asked, headers={"Prefer": "respond-async"}).json()["id"]
    with live.news(job) as news:
        states = [said["state"] for _, said in news]
    assert states[-1] == "done"
    assert set(states) <= {"queued", "running", "done"}
    answer = live.client.get(f"/api/v1/jobs/{job}/document")
    assert (answer.status_code, answer.json()["detail"]) == (404, "the job measures no profile")
    # The list of results is that of the estimates.
    live.client.post(PROFILES, json={"architecture": "quick"})
    listed = live.client.get("/api/v1/results").json()
    assert {result["question"]["task_type"] for result in listed} == {"classification"}


def test_a_stored_profile_that_is_damaged_is_measured_anew(live):
    asked = {"architecture": "quick", "warmup": 7}
    job = live.client.post(PROFILES, json=asked).json()["id"]
    with live.news(job) as news:
        assert list(news)[-1][1]["state"] == "done"
    with sqlite3.connect(live.folder / "service.db") as other:
        other.execute("UPDATE results SET found = '{}' WHERE question LIKE '%\"warmup\": 7%'")
    answer = live.client.get(f"/api/v1/jobs/{job}/document")
    assert answer.status_code == 404
    assert "no longer stored" in answer.json()["detail"]
    assert live.client.post(PROFILES, json=asked).status_code == 202


def test_a_profile_that_fails_says_why(live):
    id = live.client.post(PROFILES, json={"architecture": "refuse"}).json()["id"]
    with live.news(id) as news:
        *_, (name, said) = news
    assert (name, said["state"]) == ("state", "failed")
    assert said["reason"] == "refused: this model takes no such image"


@pytest.mark.parametrize("rest", ["events", "document"])
def test_there_is_no_such_job(live, rest):
    answer = live.client.get(f"/api/v1/jobs/{NOBODY}/{rest}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no such job")


def test_who_is_slow_is_told_less_and_not_later():
    import asyncio

    async def told() -> list[tuple[str, dict[str, object]]]:
        news = JobEvents()
        with news.listened() as listener:
            for done in range(1000):
                news.tell("progress", {"done": done})
                news.tell("rows", {"rounds": done, "rows": [[f"layer{done % 3}", done, done]]})
            news.tell("state", {"state": "done"})
            news.tell("nonsense", {})
            return await listener.news()

    *others, last = asyncio.run(told())
    assert last == ("state", {"state": "done"})
    assert others[0] == ("progress", {"done": 999})
    name, rows = others[1]
    assert (name, rows["rounds"], len(others)) == ("rows", 999, 2)
    assert sorted(rows["rows"]) == [
        ["layer0", 999, 999],
        ["layer1", 997, 997],
        ["layer2", 998, 998],
    ]


def test_somebody_still_listens(monkeypatch):
    import asyncio

    monkeypatch.setattr(viewer_routes, "HEARTBEAT_S", 0.01)

    class Jobs:
        @asynccontextmanager
        async def listened(self, id):
            with JobEvents().listened() as listener:
                yield listener

    async def first() -> bytes:
        return await anext(viewer_routes._stream("x", Jobs()))

    assert asyncio.run(first()).startswith(b":")
