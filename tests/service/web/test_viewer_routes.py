"""The viewer's back end: structures at once, news of a measurement, records, the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

import httpx
import pytest
import torch
from torch import nn

from layerbench import zoo
from layerbench.environment import devices
from layerbench.instruments import overlay
from layerbench.profilers import timing
from layerbench.profilers.monitor import Watch
from layerbench.records.workload import Plan, Workload
from layerbench.reporters.html import assets
from layerbench.service.protocol.pipe import PipeWriter
from layerbench.service.protocol.questions import ProfileQuestion
from layerbench.service.worker import profile
from tests.support.paths import ROOT
from tests.support.sample_profiles import layered
from tests.support.service_process import ports
from tests.support.viewing import NOBODY, PROFILES, PROGRESS, RECORDS, STRUCTURES, draw, events

REAL = "layerbench.service.worker.process"


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
    model = nn.Sequential(OrderedDict({"\u202e": nn.Linear(4, 4), "1": gate}))
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
    assert [row[0] for row in rows[0]["rows"]] == ["\\u202e"]
    assert [row[0] for row in rows[-1]["rows"]] == ["", "\\u202e", "1"]
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
    question = ProfileQuestion(
        architecture="resnet18",
        batch_size=2,
        image_size=(32, 32),
        precision="amp-bf16",
        channels_last=True,
        mode="train",
        threads=1,
        warmup=1,
        iterations=3,
    )
    found = profile.profile(question, "cpu", heard)
    assert found["profile"]["environment"]["command"] == (
        "timer.py --model resnet18 --batch 2 --input 3x32x32 --precision amp-bf16 --channels-last "
        "--mode train --device cpu --threads 1 --warmup 1 --iterations 3 --ceilings"
    )
    workload = found["profile"]["workload"]
    assert (workload["precision"], workload["memory_format"], workload["mode"]) == (
        "amp-bf16", "channels_last", "train",
    )  # fmt: skip
    assert found["profile"]["plan"]["threads"] == 1
    assert found["profile"]["layers"][0]["flops"] == found["structure"]["flops"]
    assert found["profile"]["workload"] == found["structure"]["workload"]
    assert found["memory"]["peak"]["bytes"] > 2 * 11_689_512
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


@pytest.mark.slow
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
