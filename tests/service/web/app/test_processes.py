"""Real server processes: ended while they measure, their logs, a second one on the same store."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from ruamel.yaml import YAML

from tests.support.paths import ROOT
from tests.support.service_process import ports, server, until
from tests.support.serving import ASYNC, RESOURCE, alive, question


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_ended_while_it_measures(tmp_path, started, ending):
    with server(tmp_path) as (process, url):
        ids = [
            httpx.post(url + RESOURCE, json=question("hang", batch_size=n), headers=ASYNC).json()[
                "id"
            ]
            for n in (1, 2)
        ]
        until(started)
        pid = int(started()[0].split()[1])
        process.send_signal(ending)
        process.wait(timeout=20)
        # Its measuring process does not outlive it.
        until(lambda: not alive(pid))
    with server(tmp_path) as (_, url):
        for id in ids:
            job = httpx.get(f"{url}/api/v1/jobs/{id}").json()
            assert job["state"] == "interrupted"
            assert "the server" in job["reason"]
        # The device is free again.
        assert httpx.post(url + RESOURCE, json=question(), timeout=30).status_code == 200


def test_bodies_of_two_lengths(tmp_path):
    """Servers believe the chunks, which say nothing about how many there will be."""
    with server(tmp_path) as (process, _):
        connection = socket.create_connection(("127.0.0.1", ports(process)[0]), timeout=10)
        connection.sendall(
            f"POST {RESOURCE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
        connection.close()


@pytest.mark.slow
def test_a_log_that_nobody_reads(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable, "-m", "layerbench", "serve", "--port", "0",
            "--database", str(tmp_path / "service.db"),
        ],
        env={**os.environ, "LAYERBENCH_SERVE_CHILD": "tests.support.service_child"},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    try:
        until(lambda: ports(process))
        with httpx.Client(base_url=f"http://127.0.0.1:{ports(process)[0]}", timeout=5) as client:
            # More than the pipe holds: of each kind, some lines are written in a second.
            for _ in range(15):
                assert client.get("/health/live").status_code == 200
                assert client.get("/nowhere").status_code == 404
                assert client.get("/", headers={"Host": "example.org"}).status_code == 403
                assert client.put("/metrics").status_code == 405
    finally:
        process.kill()
        process.wait()


def test_a_log_that_cannot_be_written(serving, monkeypatch, tmp_path):
    with serving() as client:
        log = (tmp_path / "log").open("w")
        monkeypatch.setattr(sys, "stderr", log)
        log.close()
        assert client.post(RESOURCE, json=question()).status_code == 200


@pytest.mark.slow
def test_a_second_server_on_the_same_store(tmp_path):
    with server(tmp_path):
        done = subprocess.run(
            [
                sys.executable, "-m", "layerbench", "serve", "--port", "0",
                "--database", str(tmp_path / "service.db"),
            ],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode != 0
    assert "another server works with" in done.stderr


def test_the_containers_health_check_asks_it(tmp_path):
    compose = YAML(typ="safe").load(ROOT / "compose.yaml")
    _, _, flag, code = compose["services"]["service"]["healthcheck"]["test"]
    with server(tmp_path, LAYERBENCH_SERVE_API_KEY="secret") as (_, url):
        code = code.replace("http://127.0.0.1:8000", url)
        for key, status in (("secret", 0), ("wrong", 1)):
            environment = {**os.environ, "LAYERBENCH_SERVE_API_KEY": key}
            done = subprocess.run(
                [sys.executable, flag, code], env=environment, capture_output=True, check=False
            )
            assert done.returncode == status


def test_uvicorn_starts_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_SERVE_DATABASE", str(tmp_path / "service.db"))
    monkeypatch.setenv("LAYERBENCH_SERVE_CHILD", "tests.support.service_child")
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "layerbench.service:app", "--port", "0"],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: ports(process))
        answer = httpx.get(f"http://127.0.0.1:{ports(process)[0]}/health/ready")
        assert answer.json() == {"status": "ready"}
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_web_process_loads_no_torch():
    code = "import sys, layerbench.service.web.app as a; a.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
