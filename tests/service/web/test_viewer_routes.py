"""The viewer's back end: structures at once, news of a measurement, records, the page."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from layerbench import zoo
from layerbench.environment import devices
from layerbench.instruments import overlay
from layerbench.profilers import timing
from layerbench.profilers.monitor import Watch
from layerbench.records.workload import Plan, Workload
from layerbench.reporters.html import assets
from layerbench.service.protocol.pipe import PipeWriter
from layerbench.service.protocol.questions import EXAMPLE, ProfileQuestion
from layerbench.service.web import page_documents, viewer_routes
from layerbench.service.web import structure_process as architect_module
from layerbench.service.web.app import create_app
from layerbench.service.web.job_events import JobEvents
from layerbench.service.web.settings import Settings
from layerbench.service.worker import profile
from tests.support import service_child
from tests.support.paths import ROOT
from tests.support.sample_profiles import layered, whole
from tests.support.service_process import ports, server, until

HERE = "http://127.0.0.1:8000"
STRUCTURES = "/api/v1/structures"
PROFILES = "/api/v1/profiles"
RECORDS = "/api/v1/records"
RESOURCE = "/api/v1/estimate-resource"
REAL = "layerbench.service.worker.process"
NOBODY = "0" * 32
TOLD = {"architecture": "told"}
FIRST = ["conv", 0.5, 0.5]
PROGRESS = {"kind": "progress", "phase": "measuring", "done": 3, "total": 300}
RUNNING = {"kind": "running", "path": "features.0"}
ROWS = {"kind": "rows", "rounds": 3, "final": False, "rows": [FIRST]}


def without_kind(event: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in event.items() if name != "kind"}


# --- a server, and a measurement that says what a test makes it say -------------------------


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


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, object]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


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


# --- news ----------------------------------------------------------------------------------


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
        @contextmanager
        def listened(self, id):
            with JobEvents().listened() as listener:
                yield listener

    async def first() -> bytes:
        return await anext(viewer_routes._stream("x", Jobs()))

    assert asyncio.run(first()).startswith(b":")


# --- in one process -------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """Architectures whose structure was worked out, besides the one to warm up."""
    noted = tmp_path / "drawn"
    noted.touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(service_child.DRAWN, str(noted))
    return lambda: [
        line.split()[0]
        for line in noted.read_text().splitlines()
        if not line.startswith("resnet18")
    ]


@pytest.fixture
def serving(tmp_path, drawn):
    @contextmanager
    def serve(**changes: object) -> Iterator[TestClient]:
        settings = {
            "database": tmp_path / "service.db",
            "locks": tmp_path,
            "child": "tests.support.service_child",
        }
        app = create_app(Settings(**{**settings, **changes}))
        with TestClient(app, base_url=HERE) as client:
            yield client

    return serve


@pytest.fixture
def client(serving):
    with serving() as found:
        yield found


def draw(client: TestClient, architecture: str, **changes: object) -> httpx.Response:
    return client.post(STRUCTURES, json={"architecture": architecture, **changes})


# --- structures -----------------------------------------------------------------------------


def test_a_structure_is_worked_out_once(client, drawn):
    answer = draw(client, "quick")
    assert answer.status_code == 200
    assert answer.json()["rows"]["path"] == ["", "classifier"]
    assert draw(client, "fast").content == answer.content
    assert drawn() == ["quick"]
    draw(client, "quick", image_size=[64, 64])
    assert drawn() == ["quick", "quick"]


def test_only_so_many_are_kept(client, drawn, monkeypatch):
    monkeypatch.setattr(page_documents, "KEPT", 2)
    for name in ("quick1", "quick2", "quick1", "quick3", "quick1", "quick2"):
        assert draw(client, name).status_code == 200
    assert drawn() == ["quick1", "quick2", "quick3", "quick2"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"architecture": "quicc"}, "no architecture 'quicc': did you mean quick"),
        ({"architecture": "my.py:net"}, "'my.py:net' is no architecture's name"),
        ({"architecture": "os:abort"}, "code is not run on request"),
        ({"architecture": ""}, "architecture: String should have at least 1"),
        ({"architecture": "quick", "image_size": [1]}, "image_size"),
        ({"architecture": "quick", "batch_size": 65536}, "batch times height times width"),
        ({"architecture": "quick", "task_type": "detection"}, "Extra inputs"),
    ],
)
def test_structures_and_profiles_of_what_cannot_be_meant(client, drawn, asked, says):
    for route in (STRUCTURES, PROFILES):
        answer = client.post(route, json=asked)
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True)
    assert drawn() == []


@pytest.mark.parametrize(
    ("work", "status", "says"),
    [
        ("refuse", 422, "this model takes no such image"),
        ("kill", 502, "ended by SIGKILL"),
        ("exit", 502, "ended with status 0 and no answer"),
        ("hang", 504, "it took longer than 1 s"),
    ],
)
def test_a_structure_that_cannot_be_told_and_the_next_that_can(
    client, monkeypatch, work, status, says
):
    client.get("/api/v1/models")
    monkeypatch.setattr(architect_module, "DRAWING_S", 1.0)
    answer = draw(client, work)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True)
    monkeypatch.setattr(architect_module, "DRAWING_S", 60.0)
    assert draw(client, "quick").status_code == 200
    assert draw(client, "brief").status_code == 200


def test_the_process_that_draws_is_killed_while_nobody_asks(client):
    assert draw(client, "quick").status_code == 200
    process = client.app.state.architect._child.process
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.returncode is not None)
    assert draw(client, "quick1").status_code == 200
    assert client.app.state.architect._child.process.pid != process.pid


def test_a_model_of_ones_own_is_made_anew_each_time(serving, drawn):
    with serving(specs=("my.py:net",)) as client:
        for _ in range(2):
            assert draw(client, "my.py:net").status_code == 200
        assert draw(client, "my.py:other").status_code == 422
    assert drawn() == ["my.py:net"] * 2


def test_no_room_for_a_profile(serving):
    with serving(queue=1) as client:
        asked = [{"architecture": "hang", "batch_size": number} for number in (1, 2, 3)]
        assert client.post(PROFILES, json=asked[0]).status_code == 202
        until(lambda: client.app.state.jobs._running is not None)
        assert client.post(PROFILES, json=asked[1]).status_code == 202
        refused = client.post(PROFILES, json=asked[2])
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1


# --- records --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two profiles, a structure, one that is broken, and what is no record."""
    found = tmp_path / "shelf"
    (found / "deep").mkdir(parents=True)
    texts = {
        "a.json": layered().model_dump_json(by_alias=True),
        "deep/b.json": layered().model_dump_json(by_alias=True),
        "c.json": service_child.structure("tiny").model_dump_json(),
        "broken.json": '{"record": "profile"',
        "x.trace.json": "{}",
        "other.json": whole()
        .model_copy(update={"workload": Workload(model="b", input="1x1", shape=(1, 1), batch=1)})
        .model_dump_json(by_alias=True),
    }
    for name, text in texts.items():
        (found / name).write_text(text)
    return found


def test_records_are_listed_shown_and_compared(serving, folder):
    with serving(records=(folder, folder / "a.json")) as client:
        listed = client.get(RECORDS).json()
        by_path = {entry["path"]: entry for entry in listed}
        assert list(by_path) == [
            "shelf/a.json", "shelf/broken.json", "shelf/c.json", "shelf/deep/b.json",
            "shelf/other.json",
        ]  # fmt: skip
        first = by_path["shelf/a.json"]
        assert {name: first[name] for name in first if name != "id"} == {
            "path": "shelf/a.json",
            "kind": "profile",
            "model": "tiny",
            "input": "2x3x32x32",
            "device": "amd-epyc-2c",
            "measured_at": "2025-03-01T10:00:00Z",
            "layers": len(layered().layers),
            "problem": None,
        }
        assert by_path["shelf/c.json"]["device"] is None
        broken = by_path["shelf/broken.json"]
        assert broken["problem"].startswith("shelf/broken.json is cut short")
        assert str(folder) not in json.dumps(listed)

        answer = client.get(f"{RECORDS}/{first['id']}/document")
        assert answer.json()["rows"]["path"][:2] == ["", "features"]
        answer = client.get(f"{RECORDS}/{broken['id']}/document")
        assert (answer.status_code, "is cut short" in answer.json()["detail"]) == (422, True)
        assert client.get(f"{RECORDS}/{'0' * 16}/document").status_code == 404
        assert client.get(f"{RECORDS}/..%2Fa.json/document").status_code == 404

        def compared(baseline: str, contender: str) -> httpx.Response:
            ids = {"baseline": baseline, "contender": contender}
            return client.get("/api/v1/comparison", params=ids)

        second, other = by_path["shelf/deep/b.json"]["id"], by_path["shelf/other.json"]["id"]
        answer = compared(first["id"], second)
        assert answer.status_code == 200
        assert answer.json()["changed"] is not None
        answer = compared(first["id"], other)
        assert answer.status_code == 422
        assert "shelf/a.json measured tiny" in answer.json()["detail"]
        answer = compared(first["id"], by_path["shelf/c.json"]["id"])
        assert "shelf/c.json is not a profile" in answer.json()["detail"]
        assert compared(first["id"], "0" * 16).status_code == 404
        assert compared(first["id"], "../a.json").status_code == 422


def test_a_record_is_read_again_once_it_has_changed(serving, folder):
    with serving(records=(folder,)) as client:
        client.get(RECORDS)
        (folder / "broken.json").write_text(layered().model_dump_json(by_alias=True))
        (folder / "c.json").unlink()
        listed = {entry["path"]: entry for entry in client.get(RECORDS).json()}
        assert listed["shelf/broken.json"]["problem"] is None
        assert "shelf/c.json" not in listed


def test_without_records_there_are_none(client):
    assert client.get(RECORDS).json() == []


# --- the page -------------------------------------------------------------------------------


def test_the_page_is_there_for_everybody_and_nothing_else(serving, monkeypatch):
    page = (b"<!DOCTYPE html>", "default-src 'none'")
    monkeypatch.setattr(assets, "live_page", lambda: page)
    with serving(host="0.0.0.0", api_key="secret") as client:
        answer = client.get("/")
        assert (answer.status_code, answer.content) == (200, page[0])
        assert answer.headers["Content-Security-Policy"] == page[1]
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        style = client.get("/static/page.css")
        assert style.status_code == 200
        assert style.headers["Content-Type"].startswith("text/css")
        same = client.get("/static/page.css", headers={"If-None-Match": style.headers["ETag"]})
        assert (same.status_code, same.content) == (304, b"")
        for name in ("../assets.py", "%2e%2e/assets.py", "..%2f..%2fapi.py", "%2Fetc%2Fpasswd", ""):
            answer = client.get(f"/static/{name}", follow_redirects=False)
            assert answer.status_code in (401, 404)
            assert b"import" not in answer.content
        for method, path in (
            ("GET", RECORDS), ("POST", STRUCTURES), ("POST", PROFILES), ("POST", "/"),
            ("GET", f"/api/v1/jobs/{NOBODY}/events"), ("GET", f"/api/v1/jobs/{NOBODY}/document"),
            ("GET", "/api/v1/comparison"), ("GET", f"{RECORDS}/{'0' * 16}/document"),
            ("GET", "//api/v1/records"), ("GET", "/statics"),
        ):  # fmt: skip
            assert client.request(method, path).status_code == 401, path
    with serving() as client:
        assert client.get("/", headers={"Host": "rebound.example"}).status_code == 403
        assert "/" not in client.get("/openapi.json").json()["paths"]


# --- what is said without waiting -----------------------------------------------------------


def test_a_pipe_that_nobody_empties_holds_nobody_up():
    reading, writing = os.pipe()
    pipe = PipeWriter(writing)
    long = {"kind": "rows", "rows": ["x" * 100_000]}
    assert pipe.try_send({"kind": "running", "path": "a"})
    # It is under way, and what comes next is dropped.
    assert pipe.try_send(long)
    assert not pipe.try_send(PROGRESS)
    found = bytearray()
    reader = threading.Thread(target=lambda: found.extend(iter_read(reading)))
    reader.start()
    pipe.send({"found": {}})
    os.close(writing)
    reader.join()
    said = [json.loads(line) for line in bytes(found).splitlines()]
    assert said == [{"event": {"kind": "running", "path": "a"}}, {"event": long}, {"found": {}}]


def iter_read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


class Heard:
    """Events, and what to wait for."""

    def __init__(self) -> None:
        self.all: list[dict[str, object]] = []
        self._new = threading.Condition()

    def __call__(self, event: dict[str, object]) -> bool:
        with self._new:
            self.all.append(event)
            self._new.notify_all()
        return True

    def wait(self, condition: Callable[[dict[str, object]], bool]) -> None:
        with self._new:
            assert self._new.wait_for(lambda: any(map(condition, self.all)), timeout=30)


class Gated(nn.Module):
    """Goes on once what a test waits for has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.wait: Callable[[], None] = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.wait()
        return x


def test_what_is_told_while_a_model_is_measured(monkeypatch):
    """The module that runs, and the rows that have ended while the first forward still runs."""
    heard = Heard()
    gate = Gated()
    model = nn.Sequential(nn.Linear(4, 4), gate)
    built = zoo.Built(model, (torch.zeros(1, 4),))
    workload = Workload(model="tiny", input="1x4", shape=(1, 4), batch=1)
    plan = Plan(warmup=1, iterations=3, function_iterations=1)
    with Watch(heard, poll_s=0.001, rows_s=0.0) as watch:

        def begun(session: timing.Session) -> None:
            watch.begun(session)
            gate.wait = first

        def first() -> None:
            heard.wait(lambda event: event == {"kind": "running", "path": "1"})
            if overlay.STATE in vars(gate):
                heard.wait(lambda event: event["kind"] == "rows" and event["rounds"] == 0)
                gate.wait = lambda: None

        timing.measure(
            workload, plan, devices.get("cpu"), subject=built, progress=watch, begun=begun
        )
        watch.step("memory", 0, 1)
    rows = [event for event in heard.all if event["kind"] == "rows"]
    # Of the forward that stands still, only what comes before the gate.
    assert [row[0] for row in rows[0]["rows"]] == ["0"]
    assert [row[0] for row in rows[-1]["rows"]] == ["", "0", "1"]
    assert (rows[-1]["rounds"], rows[-1]["final"]) == (3, True)
    assert all(inclusive >= own >= 0 for _, inclusive, own in rows[-1]["rows"])
    phases = [event["phase"] for event in heard.all if event["kind"] == "progress"]
    assert phases[0] == "building"
    assert phases[-1] == "memory"


def test_what_is_not_taken_is_offered_again():
    taken: list[dict[str, object]] = []
    refused = threading.Event()

    def offer(event: dict[str, object]) -> bool:
        if event["kind"] == "progress" and not refused.is_set():
            refused.set()
            return False
        taken.append(event)
        return True

    with Watch(offer, poll_s=0.001):
        assert refused.wait(30)
    assert {"kind": "progress", "phase": "building", "done": 0, "total": 1} in taken
    # And what has not changed is not said again.
    assert len(taken) == 2


# --- the real thing -------------------------------------------------------------------------


def test_a_real_profile():
    heard = Heard()
    question = ProfileQuestion(architecture="resnet18", image_size=(32, 32), warmup=1, iterations=3)
    found = profile.profile(question, "cpu", heard)
    assert found["profile"]["environment"]["command"] == (
        "timer.py --model resnet18 --batch 1 --input 3x32x32 --warmup 1 --iterations 3 --ceilings"
    )
    assert found["profile"]["workload"] == found["structure"]["workload"]
    assert found["memory"]["peak"]["bytes"] > 4 * 11_689_512
    assert found["profile"]["ceilings"]["flops_per_s"] > 0
    final = [event for event in heard.all if event["kind"] == "rows"][-1]
    assert (final["rounds"], final["final"]) == (3, True)
    timed = {row["path"]: row for row in found["profile"]["layers"] if row["kind"] == "module"}
    assert {row[0] for row in final["rows"]} == timed.keys()
    for path, inclusive, own in final["rows"]:
        assert inclusive == pytest.approx(timed[path]["inclusive"]["median"], abs=1e-9)
        assert own == pytest.approx(timed[path]["self"]["median"], abs=1e-9)


def test_a_profile_without_its_memory(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cannot\nbe traced")

    monkeypatch.setattr(profile, "profile_memory", broken)
    question = ProfileQuestion(architecture="resnet18", image_size=(32, 32), warmup=0, iterations=1)
    found = profile.profile(question, "cpu", Heard())
    assert found["memory"] is None
    assert found["profile"]["notes"][-1] == "no memory report: RuntimeError: cannot"


OWN = """
import torch
def net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
"""


def test_the_viewer_as_a_user_starts_it(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    (tmp_path / "a.json").write_text(layered().model_dump_json(by_alias=True))
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "model_viz.py"), str(tmp_path / "a.json"),
            "--model", f"{own}:net", "--port", "0", "--no-open", "--device", "cpu",
            "--database", str(tmp_path / "service.db"),
        ],
        env={**os.environ, "LAYERBENCH_SERVE_LOCKS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline().strip()
        url = f"http://127.0.0.1:{ports(process)[0]}"
        assert line == f"{url}/#model={str(own).replace('/', '%2F')}%3Anet"
        with httpx.Client(base_url=url, timeout=120) as client:
            assert client.get("/static/page.css").status_code == 200
            (record,) = client.get(RECORDS).json()
            assert (record["path"], record["model"]) == ("a.json", "tiny")
            paths = {"": "Sequential", "0": "Conv2d", "1": "ReLU"}
            answer = draw(client, f"{own}:net", image_size=[32, 32])
            assert answer.json()["rows"]["path"] == list(paths)
            assert draw(client, "own.py:net").status_code == 422
            real = draw(client, "resnet18")
            assert len(real.json()["rows"]["path"]) == 68
            short = draw(client, "vit_b_16", image_size=[100, 100])
            assert short.status_code == 422
            assert "cannot be built for images of 100x100" in short.json()["detail"]
            asked = {"architecture": "resnet18", "image_size": [32, 32], "iterations": 3}
            id = client.post(PROFILES, json={**asked, "warmup": 0}).json()["id"]
            with client.stream("GET", f"/api/v1/jobs/{id}/events") as answer:
                found = list(events(answer.iter_lines()))
            assert found[-1] == ("state", {"state": "done", "reason": "", "ahead": 0})
            assert {name for name, _ in found} == {"state", "progress", "running", "rows"}
            document = client.get(f"/api/v1/jobs/{id}/document").json()
            assert {"conv1", "layer4.1.conv2"} <= set(document["rows"]["path"])
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_records_that_are_not_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "layerbench", "view", str(tmp_path / "none"), "--no-open"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"there is no {tmp_path / 'none'}" in done.stderr
