"""The estimation service: what it answers, and what it holds through. SERVICE's promises."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx
import psutil
import pytest
from filelock import FileLock
from starlette.testclient import TestClient

from layerbench import cli
from layerbench.service.web import job_runner
from layerbench.service.web.app import create_app
from layerbench.service.web.settings import Settings
from layerbench.service.web.worker_process import Child
from tests.support.service_process import until
from tests.support.serving import ASYNC, RESOURCE, RESULTS, alive, ended, question

TRAINING = "/api/v1/estimate-training-time"
INFERENCE = "/api/v1/estimate-inference-time"
KEYS = {
    "Peak GPU Memory",
    "Peak GPU Utilization",
    "Peak RAM Memory",
    "Peak CPU Utilization",
    "Batch Time",
    "RAM before training",
    "VRAM before training",
}


# --- answers -------------------------------------------------------------------------------


def test_what_a_job_needs(client):
    answer = client.post(RESOURCE, json=question())
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {*KEYS, "about"}
    assert body["Batch Time"] == {"forward_pass": 0.5, "backward_pass": 1.0}
    assert (body["Peak GPU Memory"], body["Peak GPU Utilization"]) == (None, None)
    assert body["RAM before training"] == 100
    about = body["about"]
    assert about["interval"]["forward_pass"] == [0.4, 0.6]
    # Every figure that there is says how it was had, and what may be found in its place.
    given = {name for name in KEYS - {"Batch Time"} if body[name] is not None}
    told = {*given, "forward_pass", "backward_pass"}
    assert about["interval"].keys() == about["method"].keys() == told
    assert set(about["method"].values()) == {"measured"}
    low, high = about["interval"]["Peak RAM Memory"]
    assert low < body["Peak RAM Memory"] < high
    assert about["parameters"] == {"asked": 10, "found": 10, "matches": True}
    assert about["environment"]["device"]["kind"] == "cpu"
    assert set(about["units"]) == {"time", "memory", "utilization"}


def test_durations_are_made_of_the_same_measurement(client, started):
    asked = question(dataset_size=10, batch_size=4, epochs=3)
    body = client.post(TRAINING, json=asked).json()
    # Ten images fill two batches of four and begin a third.
    assert body["Total Training Time"] == pytest.approx((0.5 + 1.0) * 3 * 3)
    assert body["parts"] == {"forward_pass": 0.5, "backward_pass": 1.0, "batches": 3, "epochs": 3}
    assert body["about"]["interval"]["Total Training Time"] == pytest.approx([1.3 * 9, 1.8 * 9])
    assert not body["about"]["stored"]
    again = client.post(TRAINING, json=question(dataset_size=100, batch_size=4, epochs=1)).json()
    assert again["Total Training Time"] == pytest.approx(1.5 * 25)
    assert again["about"]["stored"]
    assert client.post(RESOURCE, json=asked).json()["about"]["stored"]
    assert len(started()) == 1
    body = client.post(INFERENCE, json=asked).json()
    assert body.keys() == {"1-Image Inference Time", "Batch of 4 Inference Time", "about"}
    assert len(started()) == 2


@pytest.mark.slow
def test_what_is_stored_outlives_the_server_and_is_measured_anew_on_wish(serving, started):
    with serving() as client:
        first = client.post(RESOURCE, json=question()).json()["about"]
        assert (first["stored"], first["job"] is None) == (False, False)
    with serving() as client:
        assert client.post(RESOURCE, json=question(parameters=11)).json()["about"] == {
            **first,
            "stored": True,
            "job": None,
            "parameters": {"asked": 11, "found": 10, "matches": False},
        }
        assert len(started()) == 1
        assert not client.post(f"{RESOURCE}?refresh=true", json=question()).json()["about"][
            "stored"
        ]
        assert len(started()) == 2
        (stored,) = client.get("/api/v1/results").json()
        assert stored["question"]["architecture"] == "quick"
        assert stored["found"]["ram_peak"] == 200
        assert client.get("/api/v1/models").json()["detection"] == ["detector"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"batch_size": 5}, {"image_size": [1, 2]}, {"threading": True}]
)
def test_another_question_is_measured(client, started, changed):
    client.post(RESOURCE, json=question())
    client.post(RESOURCE, json=question(**changed))
    assert len(started()) == 2


# --- what may be asked ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"architecture": "quicc"},
            "no architecture 'quicc' for classification: did you mean quick",
        ),
        ({"architecture": "detector"}, "is no architecture for classification, but for detection"),
        ({"architecture": "../x.py:build"}, "architecture: String should match"),
        ({"batch_size": 0}, "batch_size: Input should be greater"),
        (
            {"batch_size": 65536, "image_size": [8192, 8192]},
            "batch times height times width may be",
        ),
        ({"image_size": [256]}, "image_size"),
        ({"colour": "blue"}, "colour: Extra inputs are not permitted"),
        ({"epochs": "many"}, "epochs: Input should be a valid integer"),
    ],
)
def test_questions_that_cannot_be_meant(client, started, changed, says):
    answer = client.post(RESOURCE, json=question(**changed))
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert started() == []


def test_long_bodies_and_bodies_of_unknown_length(client):
    assert client.post(RESOURCE, content=b"x" * 20_000).status_code == 413
    assert client.post(RESOURCE, content=iter([b"{}"])).status_code == 411
    assert client.post(RESOURCE, content=b"{").status_code == 422


# --- nothing kills it ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "status", "says"),
    [
        ("segv", 502, "ended by SIGSEGV"),
        ("kill", 502, "ended by SIGKILL"),
        ("exit", 502, "ended with status 0 and no answer"),
        ("memory", 422, "not enough memory"),
        ("shared", 422, "shared memory included"),
        ("refuse", 422, "this model takes no such image"),
        ("malformed", 502, "found what is no result"),
        ("infinite", 502, "found what is no result"),
        ("hang", 504, "took longer than 1 s"),
        ("stubborn", 504, "took longer than 1 s"),
    ],
)
def test_a_measurement_that_fails_says_why_and_the_next_succeeds(
    serving, started, monkeypatch, work, status, says
):
    monkeypatch.setattr("layerbench.service.web.worker_process.GRACE_S", 0.2)
    monkeypatch.setattr("layerbench.service.web.worker_process.LOOK_S", 0.1)
    deadline = 1.0 if status == 504 else 60.0
    memory = 300 * 2**20 if work == "shared" else 2**30
    with serving(deadline=deadline, memory=memory) as client:
        answer = client.post(RESOURCE, json=question(work))
        assert (answer.status_code, says in answer.json()["detail"]) == (status, True)
        if status != 504:
            assert client.post(RESOURCE, json=question("chatty")).status_code == 200
        metrics = client.get("/metrics").text
        assert 'layerbench_jobs_total{state="failed"} 1.0' in metrics
        assert (status == 504) != ('layerbench_jobs_total{state="done"} 1.0' in metrics)
    pid = int(started()[0].split()[1])
    # Nor anything that it started.
    until(lambda: not [p for p in psutil.process_iter() if of_group(p, pid)])


def of_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def test_a_module_that_is_not_there(serving):
    with serving(child="tests.no_such_module") as client:
        answer = client.post(RESOURCE, json=question())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        answer = client.get("/api/v1/models")
        assert answer.status_code == 503
        assert "No module named tests.no_such_module" in answer.json()["detail"]
        assert client.get("/health/live").status_code == 200


# --- the queue -----------------------------------------------------------------------------


def posted(client: TestClient, asked: list[dict[str, object]], **options: object) -> list:
    with ThreadPoolExecutor(min(len(asked), 100)) as pool:
        return list(pool.map(lambda body: client.post(RESOURCE, json=body, **options), asked))


def test_many_identical_questions_are_measured_once(client, started):
    found = posted(client, [question("slow")] * 100)
    assert {answer.status_code for answer in found} == {200}
    assert len(started()) == 1
    assert len({answer.json()["about"]["job"] for answer in found} - {None}) == 1


@pytest.mark.slow
def test_one_measurement_at_a_time_also_of_two_servers(serving, tmp_path):
    with serving() as one, serving(database=tmp_path / "other.db") as other:
        with ThreadPoolExecutor(2) as pool:
            sides = [
                pool.submit(
                    posted,
                    client,
                    [question("brief", batch_size=n) for n in range(first, first + 10)],
                )
                for client, first in ((one, 1), (other, 11))
            ]
            for side in sides:
                assert {answer.status_code for answer in side.result()} == {200}
        found = [
            result["found"] for client in (one, other) for result in client.get(RESULTS).json()
        ]
    spans = sorted((result["began_at"], result["ended_at"]) for result in found)
    assert len(spans) == 20
    assert all(ended - began >= 0.1 for began, ended in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


@pytest.mark.slow
def test_what_does_not_fit_into_the_queue_is_refused_and_the_rest_is_not_lost(serving):
    with serving(queue=5) as client:
        client.get("/api/v1/models")
        found = posted(client, [question(f"quick{n}") for n in range(500)], headers=ASYNC)
        taken = [answer for answer in found if answer.status_code == 202]
        refused = [answer for answer in found if answer.status_code == 429]
        assert len(taken) + len(refused) == 500
        assert refused
        assert len(taken) >= 5
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {ended(client, answer.json()["id"])["state"] for answer in taken} == {"done"}


def test_a_job_in_place_of_a_wait(client):
    answer = client.post(RESOURCE, json=question("slow"), headers=ASYNC)
    assert answer.status_code == 202
    where, job = answer.headers["Location"], answer.json()
    assert int(answer.headers["Retry-After"]) >= 1
    assert where == f"/api/v1/jobs/{job['id']}"
    assert job["state"] == "queued"
    assert ended(client, job["id"])["state"] == "done"
    assert client.post(RESOURCE, json=question("slow"), headers=ASYNC).status_code == 200
    assert client.get(f"/api/v1/jobs/{'0' * 32}").status_code == 404


def test_a_wait_that_is_too_long_gives_a_job(serving):
    with serving(wait_s=0.1) as client:
        answer = client.post(RESOURCE, json=question("slow"))
        assert answer.status_code == 202
        assert ended(client, answer.json()["id"])["state"] == "done"


def test_cancelling_what_runs_and_what_waits(client, started):
    first, second = (
        client.post(RESOURCE, json=question("hang", batch_size=n), headers=ASYNC).json()
        for n in (1, 2)
    )
    until(started)
    pid = int(started()[0].split()[1])
    assert client.get(f"/api/v1/jobs/{first['id']}").json()["state"] == "running"
    for _ in range(2):
        for job in (second, first):
            answer = client.delete(f"/api/v1/jobs/{job['id']}")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    until(lambda: not alive(pid))
    assert client.post(RESOURCE, json=question()).status_code == 200
    assert len(started()) == 2
    done = client.post(RESOURCE, json=question("quick1"), headers=ASYNC).json()["id"]
    assert ended(client, done)["state"] == "done"
    assert client.delete(f"/api/v1/jobs/{done}").json()["state"] == "done"
    assert client.delete(f"/api/v1/jobs/{'0' * 32}").status_code == 404
    assert 'layerbench_jobs_total{state="cancelled"} 2.0' in client.get("/metrics").text


def test_what_is_cancelled_makes_room(serving, started):
    with serving(queue=2) as client:
        running = client.post(RESOURCE, json=question("hang"), headers=ASYNC).json()
        until(started)

        def ask(number: int) -> httpx.Response:
            return client.post(RESOURCE, json=question(batch_size=number), headers=ASYNC)

        waiting = [ask(1), ask(2)]
        assert ask(3).status_code == 429
        assert "layerbench_jobs_queued 2.0" in client.get("/metrics").text
        for answer in waiting:
            client.delete(f"/api/v1/jobs/{answer.json()['id']}")
        assert "layerbench_jobs_queued 0.0" in client.get("/metrics").text
        assert ask(3).status_code == 202
        # Who joins a job that runs is told that it does.
        joined = client.post(RESOURCE, json=question("hang"), headers=ASYNC).json()
        assert (joined["id"], joined["state"]) == (running["id"], "running")
        client.delete(f"/api/v1/jobs/{running['id']}")


def test_a_process_that_is_killed_while_it_waits_for_the_device(client, tmp_path, started):
    client.get("/api/v1/models")
    with FileLock(tmp_path / "layerbench-cpu.lock"):
        job = client.post(RESOURCE, json=question(), headers=ASYNC).json()["id"]
        until(lambda: client.app.state.jobs._runners.here._child is not None)
        time.sleep(0.5)
        assert started() == []
        client.app.state.jobs._runners.here._child.process.kill()
        assert "SIGKILL" in ended(client, job)["reason"]
    assert client.post(RESOURCE, json=question()).status_code == 200


def test_cancelling_what_is_just_being_started(client, started):
    client.get("/api/v1/models")
    for number in range(1, 6):
        job = client.post(RESOURCE, json=question("hang", batch_size=number), headers=ASYNC)
        time.sleep(0.01 * number)
        assert client.delete(f"/api/v1/jobs/{job.json()['id']}").json()["state"] == "cancelled"
    assert client.post(RESOURCE, json=question()).status_code == 200
    pids = [int(line.split()[1]) for line in started()[:-1]]
    until(lambda: not any(map(alive, pids)))


def test_who_waits_for_a_job_that_is_cancelled_is_told(client, started):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, RESOURCE, json=question("hang"))
        until(started)
        job = client.app.state.jobs._runners.here.job.id
        client.delete(f"/api/v1/jobs/{job}")
        answer = waiting.result(timeout=20)
    assert (answer.status_code, answer.json()["detail"]) == (409, "cancelled on request")


# --- who may -------------------------------------------------------------------------------


def routes(client: TestClient) -> Iterator[tuple[str, str]]:
    yield "get", "/openapi.json"
    yield "get", "/docs"
    for path, methods in client.app.openapi()["paths"].items():
        for method in methods:
            yield method, path.replace("{id}", "0" * 32)


def test_every_route_takes_the_key(serving):
    with serving(host="0.0.0.0", api_key="secret") as client:
        every = list(routes(client))
        assert len(every) >= 12
        for method, path in every:
            for headers in ({}, {"X-API-Key": "Secret"}, {"X-API-Key": "sécret".encode()}):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401, path
        assert client.get("/health/live", headers={"X-API-Key": "secret"}).status_code == 200


def test_other_machines_need_a_key(serving, monkeypatch, capsys):
    with pytest.raises(ValueError, match="set LAYERBENCH_SERVE_API_KEY"):
        create_app(Settings(host="0.0.0.0"))
    # An empty key is none, as compose files give it.
    monkeypatch.setenv("LAYERBENCH_SERVE_API_KEY", "")
    with pytest.raises(ValueError, match="set LAYERBENCH_SERVE_API_KEY"):
        create_app(Settings(host="0.0.0.0"))
    with pytest.raises(ValueError, match="at least 1"):
        Settings(host="0.0.0.0", api_key="")
    monkeypatch.setattr(sys, "argv", ["layerbench", "serve", "--host", "0.0.0.0"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "can be reached from other machines" in capsys.readouterr().err
    # Nor where uvicorn listens elsewhere than the settings say, nor for a page of another host.
    with serving() as client:
        for url in ("http://10.1.2.3/health/live", "http://[fe80::1]/health/live"):
            assert client.get(url).status_code == 403
        assert client.get("/health/live", headers={"Host": "rebound.example"}).status_code == 403
        for url in ("http://localhost/health/live", "http://[::1]:80/health/live"):
            assert client.get(url).status_code == 200


# --- what can be seen ----------------------------------------------------------------------


def test_a_request_has_a_number_in_answer_and_log(capsys, client):
    answer = client.post(RESOURCE, json=question(), headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    said = ""

    def line_said() -> bool:
        # It is written once the answer has gone out.
        nonlocal said
        said += capsys.readouterr().err
        return '"event": "request"' in said and said.endswith("\n")

    until(line_said)
    (line,) = [json.loads(line) for line in said.splitlines() if '"event": "request"' in line]
    assert (line["request"], line["route"], line["status"]) == ("mine-1", RESOURCE, 200)
    made = client.get("/health/live", headers={"X-Request-ID": "x" * 65}).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert client.get("/nowhere").headers["X-Request-ID"]
    text = client.get("/metrics").text
    counted = f'layerbench_requests_total{{method="POST",route="{RESOURCE}",status="200"}} 1.0'
    assert counted in text
    assert 'layerbench_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text


def test_made_up_methods_are_counted_as_one(client):
    for number in range(3):
        assert client.request(f"MADE{number}", "/health/live").status_code == 405
    text = client.get("/metrics").text
    assert 'layerbench_requests_total{method="other",route="/health/live",status="405"} 3.0' in text
    assert "MADE" not in text


def test_a_measurement_that_cannot_be_ended(serving, monkeypatch):
    async def never(self, *limits):
        await job_runner.asyncio.Event().wait()

    monkeypatch.setattr(job_runner, "WEDGED_S", 0.1)
    with serving(deadline=0.1) as client:
        client.get("/api/v1/models")
        monkeypatch.setattr(Child, "answer", never)
        assert client.get("/health/ready").json() == {"status": "ready"}
        client.post(RESOURCE, json=question(), headers=ASYNC)
        until(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/health/live").json() == {"status": "live"}
