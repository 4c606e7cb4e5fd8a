"""``layerbench client``: what a service says, and what anything else in its place says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace
from functools import partial

import httpx
import pytest

from layerbench.errors import DataError, ServiceError, UsageError
from layerbench.profilers.progress import Silent
from layerbench.service import client
from layerbench.service.client import Case, read_cases, table

CASE = Case("estimate-resource", {"architecture": "resnet18", "batch_size": 2})
ABOUT = {"stored": True, "units": {"time": "seconds"}, "environment": {"a": [1]}}
GOOD = {
    "Peak GPU Memory": None,
    "Peak RAM Memory": 2**30,
    "Peak CPU Utilization": 0.5,
    "Batch Time": {"forward_pass": 0.25, "backward_pass": None},
    "Total Training Time": 7200.0,
    "about": ABOUT,
}


@pytest.fixture
def ask(monkeypatch):
    """``ask(answer, answer, ...)``: what comes of a server that says these, the last for ever."""
    monkeypatch.setattr(client, "LOOK_S", 0.0)
    made = httpx.Client

    def answered(*answers: httpx.Response, timeout: float = 5.0, seen: list | None = None):
        waiting = iter([*answers[:-1]])

        def handle(request: httpx.Request) -> httpx.Response:
            if seen is not None:
                seen.append(request)
            found = next(waiting, answers[-1])
            return httpx.Response(found.status_code, headers=found.headers, content=found.content)

        clients = partial(made, transport=httpx.MockTransport(handle))
        monkeypatch.setattr(client.httpx, "Client", clients)
        return client.ask([CASE], "http://there", timeout=timeout, refresh=False, progress=Silent())

    return answered


def says(body, status=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers=headers)


JOB = {"Location": "/api/v1/jobs/1"}


def test_an_answer_is_a_table(ask):
    shown = table(ask(says(GOOD)))
    for part in ("resnet18", "Peak RAM Memory 1.00 GiB", "Total Training Time 2 h 00 min", "store"):
        assert part in shown
    assert "forward_pass 250.0 ms" in shown
    assert "Peak GPU Memory -" in shown


def test_an_answer_for_a_card_names_it_and_is_a_prediction(ask):
    method = {"Peak GPU Memory": "predicted"}
    (found,) = ask(says({**GOOD, "about": {**ABOUT, "stored": False, "method": method}}))
    assert "device" not in table([found])
    named = replace(found, case=Case(CASE.route, {**CASE.question, "device": "rtx\x1b4090"}))
    header, _, first, *_ = table([named, found]).splitlines()
    columns = ["architecture", "for", "batch", "image", "device", "answer", "from", "took"]
    assert header.split() == columns
    assert "rtx\\x1b4090" in first
    assert "prediction" in first
    (measured,) = ask(says({**GOOD, "about": {**ABOUT, "stored": False}}))
    assert "measurement" in table([measured])


def test_a_measurement_that_takes_longer_is_waited_for(ask):
    seen: list[httpx.Request] = []
    state = (says({"state": state}) for state in ("queued", "running", "done"))
    (found,) = ask(says({}, 202, **JOB), *state, says(GOOD), seen=seen)
    assert found.answered
    assert [request.url.path for request in seen][1:4] == ["/api/v1/jobs/1"] * 3


def test_a_refusal_stands_in_the_table_as_it_can_be_shown(ask):
    (found,) = ask(says({"detail": "\x1b[2Jno \u202esuch\nmodel" + "x" * 5_000}, 422))
    assert not found.answered
    shown = table([found])
    assert "422: \\x1b[2Jno \\u202esuch model" in shown
    assert len(shown) < 2_000
    assert all(line.isprintable() for line in shown.split("\n"))


WRONG = {
    "no JSON": [says(b"<html>not found</html>")],
    "no JSON and an error": [says(b"bad gateway", 502)],
    "nothing": [says(b"")],
    "a list": [says([])],
    "null": [says(None)],
    "a number": [says(5)],
    "a text": [says("\x1b[2J")],
    "no about": [says({"Peak RAM Memory": 1})],
    "an empty about": [says({**GOOD, "about": {}})],
    "about is a list": [says({**GOOD, "about": []})],
    "not a number": [says({**GOOD, "Total Training Time": float("nan")})],
    "without end": [says({**GOOD, "Total Training Time": float("inf")})],
    "1e999": [says(b'{"about": {"stored": true}, "Batch Time": 1e999}')],
    "many digits": [says(b'{"about": {"stored": true}, "Batch Time": ' + b"9" * 5_000 + b"}")],
    "below 0": [says({**GOOD, "Total Training Time": -1})],
    "text for a number": [says({**GOOD, "Peak RAM Memory": "\x1b[2J"})],
    "a list for a number": [says({**GOOD, "Peak RAM Memory": [1]})],
    "nested": [says({**GOOD, "Batch Time": {"a": {"b": 1}}})],
    "nested deep": [says(b"[" * 100_000)],
    "not UTF-8": [says(b'{"about": "\xff"}')],
    "a long name": [says({**GOOD, "x" * 10_000: 1})],
    "too long": [says(b" " * (client.MOST_BYTES + 1))],
    "moved": [says(b"", 302, Location="http://evil/")],
    "no place to look": [says({}, 202)],
    "another place": [says({}, 202, Location="http://evil/api/v1/jobs/1")],
    "another host": [says({}, 202, Location="//evil/api/v1/jobs/1")],
    "a place that is none": [says({}, 202, Location="/\x1b[2J")],
    "a job that is not there": [says({}, 202, **JOB), says({"detail": "?"}, 404)],
    "a job without state": [says({}, 202, **JOB), says({}), says([])],
    "a job that is a list": [says({}, 202, **JOB), says([])],
    "a job that is no JSON": [says({}, 202, **JOB), says(b"\x1b[2J")],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_answer_is_said_in_one_line(ask, name):
    with pytest.raises(ServiceError) as error:
        ask(*WRONG[name])
    text = str(error.value)
    assert text.startswith("no service answers at http://there")
    assert text.isprintable()
    assert len(text) < 600


def test_jobs_without_end_are_not_waited_for_longer_than_asked(ask):
    with pytest.raises(ServiceError, match="raise --timeout"):
        ask(says({}, 202, **JOB), says({"state": "running"}), timeout=0.1)


def test_a_key_is_sent_to_the_named_place_only(ask, monkeypatch):
    monkeypatch.setenv(client.KEY_VARIABLE, "secret")
    seen: list[httpx.Request] = []
    with pytest.raises(ServiceError):
        ask(says({}, 202, Location="http://evil/jobs/1"), seen=seen)
    assert {request.url.host for request in seen} == {"there"}
    assert seen[0].headers["X-API-Key"] == "secret"


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x1b[2J\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"\0" * 99],
)
def test_what_speaks_no_http_is_said_in_one_line(garbage):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            there, _ = server.accept()
            with there:
                there.recv(65_536)
                there.sendall(garbage)

        thread = threading.Thread(target=once)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServiceError) as error:
            client.ask([CASE], url, timeout=5.0, refresh=False, progress=Silent())
        thread.join()
    assert str(error.value).isprintable()


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://there", "http://\x1b[2J/", ""])
def test_an_address_that_is_none(url):
    with pytest.raises((UsageError, ServiceError)) as error:
        client.ask([CASE], url, timeout=1.0, refresh=False, progress=Silent())
    assert str(error.value).isprintable()


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none(timeout):
    with pytest.raises(UsageError, match="--timeout takes seconds above 0"):
        client.ask([CASE], "http://there", timeout=timeout, refresh=False, progress=Silent())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a\x00b\n1,2\n", b"architecture\n"])
def test_a_table_of_questions_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises((DataError, UsageError)):
        read_cases(path)


@pytest.mark.parametrize("cell", ["9" * 5_000, "²", "1e3", ""])
def test_a_number_that_is_none(tmp_path, cell):
    path = tmp_path / "cases.csv"
    path.write_text(f"architecture,batch_size\nresnet18,{cell}\n", encoding="utf-8")
    if cell:
        with pytest.raises(UsageError, match="line 2: batch_size cannot be"):
            read_cases(path)
    else:
        assert read_cases(path) == [Case("estimate-resource", {"architecture": "resnet18"})]


def test_a_header_that_never_ends_is_cut_off():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    connection.sendall(b"x: y\r\n")
                    time.sleep(0.05)

        threading.Thread(target=trickle, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ServiceError, match="raise --timeout"):
            client.ask([CASE], url, timeout=0.3, refresh=False, progress=Silent())
