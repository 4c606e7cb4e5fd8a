"""How a server starts, where it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import httpx
import pytest
import uvicorn
from filelock import FileLock

from layerbench import cli
from layerbench.errors import UsageError
from layerbench.service.web import server as server_module
from layerbench.service.web import store_opening
from layerbench.service.web.database import StoreError
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.middleware import RequestMiddleware
from layerbench.service.web.settings import Settings
from layerbench.service.web.sqlite_database import SqliteDatabase
from layerbench.service.web.store_opening import opened
from tests.support.service_process import ROOT, server, until

RESOURCE = "/api/v1/estimate-resource"
HANGING = {
    "task_type": "classification", "architecture": "hang", "batch_size": 1, "image_size": [8, 8]
}  # fmt: skip


def refusal(capsys, monkeypatch, *words: str) -> str:
    """What a server says that does not start: one line, and status 2."""
    monkeypatch.setattr(sys, "argv", ["layerbench", "serve", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> bytes:
    """A store of several pages."""
    path = tmp_path_factory.mktemp("pages") / "whole.db"
    store = SqliteDatabase(path)
    for number in range(10):
        store.add(str(number), {"question": "x" * 3000})
    store.close()
    return path.read_bytes()


def with_damage(pages: bytes, where: int) -> bytes:
    return pages[:where] + b"\xff" * 4096 + pages[where + 4096 :]


def full(*_: object) -> None:
    raise StoreError("database or disk is full")


def read_only(*_: object, **__: object) -> int:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_stores_that_cannot_be_used(capsys, monkeypatch, tmp_path, pages):
    def said(path: object) -> str:
        return refusal(capsys, monkeypatch, "--port", "0", "--database", str(path))

    assert "is a folder" in said(tmp_path)
    (tmp_path / "text").write_text("no database" * 500)
    assert "file is not a database" in said(tmp_path / "text")
    for number, where in enumerate((0, 100, 4096, 3 * 4096, 6 * 4096)):
        (tmp_path / f"{number}.db").write_bytes(with_damage(pages, where))
        assert "cannot be used as the store" in said(tmp_path / f"{number}.db")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be used as the store" in said(tmp_path / "loop")
    assert "cannot be used as the store" in said(tmp_path / "text" / "below.db")
    assert "cannot be used as the store: No such file" in said("/proc/store.db")
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in said(tmp_path / "pipe")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE results (a, b)")
    assert "no such column" in said(tmp_path / "other.db")
    SqliteDatabase(tmp_path / "one.db").close()
    (tmp_path / "two.db").hardlink_to(tmp_path / "one.db")
    assert "further names" in said(tmp_path / "two.db")
    with FileLock(tmp_path / "held.db.lock"):
        assert "another server works with" in said(tmp_path / "held.db")
        (tmp_path / "link.db").symlink_to("held.db")
        assert "another server works with" in said(tmp_path / "link.db")
    with monkeypatch.context() as patched:
        patched.setattr(SqliteDatabase, "_try", full)
        assert "disk is full" in said(tmp_path / "full.db")
        patched.setattr(store_opening.os, "open", read_only)
        assert "Read-only file system" in said(tmp_path / "read-only.db")


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_store_is_refused_or_answers(tmp_path, pages, seed):
    random = Random(seed)
    changed = bytearray(pages)
    for _ in range(random.choice([1, 4])):
        size, at = random.choice([1, 3, 50, 4096]), random.randrange(len(changed))
        changed[at : at + size] = random.randbytes(size)
    path = tmp_path / "a.db"
    path.write_bytes(changed[: len(pages)])
    # Whatever SQLite says of it, also in words that are no text, is its own kind of error.
    with suppress(StoreError):
        store = SqliteDatabase(path)
        for call in (store.complaint, store.damage, lambda: store.results(9), store.forget_old):
            with suppress(StoreError):
                call()
        for id in (row[0] for row in store._driver.execute("SELECT id FROM jobs").fetchall()):
            with suppress(StoreError):
                store.job(id)
        store.close()


def test_addresses_that_cannot_be_had(capsys, monkeypatch, tmp_path):
    def said(*words: str) -> str:
        return refusal(capsys, monkeypatch, "--database", str(tmp_path / "a.db"), *words)

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert "cannot listen at 127.0.0.1" in said("--port", str(port))
    assert "--port must be at most 65535, got 70000" in said("--port", "70000")
    with monkeypatch.context() as patched:
        patched.setenv("LAYERBENCH_SERVE_RECORDS", "no list")
        assert "records" in said()
    monkeypatch.setenv("LAYERBENCH_SERVE_API_KEY", "x")
    assert "cannot listen at 203.0.113.1" in said("--host", "203.0.113.1", "--port", "0")
    assert "cannot listen at no host" in said("--host", "no host", "--port", "0")


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "-inf", "1e400"])
@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--seconds"], ["serve", "--deadline"],
        ["client", "--test-cases", "x", "--timeout"],
        ["sweep", "--seconds"], ["estimate", "training-time", "--seconds"],
        ["estimate", "detection", "--seconds"], ["train", "--checkpoint_minutes"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_amounts_that_are_none(capsys, monkeypatch, words, value):
    monkeypatch.setattr(sys, "argv", ["layerbench", *words, value])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "must be a number from 0 on" in capsys.readouterr().err


def test_settings_of_the_surroundings_too(monkeypatch):
    for name in ("SECONDS", "DEADLINE", "WAIT_S", "REQUEST_S", "READING_S"):
        for value in ("inf", "nan", "-1", "1e9"):
            with monkeypatch.context() as patched:
                patched.setenv(f"LAYERBENCH_SERVE_{name}", value)
                with pytest.raises(ValueError, match=name.lower()):
                    Settings()


def test_the_store_is_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        with opened(tmp_path / "new" / "a.db") as store:
            store.add("a", {})
            modes = {
                file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()
            }
    finally:
        os.umask(before)
    assert {"a.db", "a.db.lock", "a.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    # What somebody has made as they wish stays so, and the lock goes with its holder.
    (tmp_path / "new" / "a.db").chmod(0o640)
    with opened(tmp_path / "new" / "a.db"):
        assert (tmp_path / "new" / "a.db").stat().st_mode & 0o777 == 0o640
        with pytest.raises(UsageError), opened(tmp_path / "new" / "a.db"):
            pass
    with opened(tmp_path / "new" / "a.db"):
        pass


# --- ends -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_who_waits_is_told_that_the_server_ends(tmp_path, ending):
    started = tmp_path / "started"
    started.touch()
    lines: list[str] = []
    with (
        server(
            tmp_path,
            lines,
            LAYERBENCH_TEST_STARTED=str(started),
            LAYERBENCH_SERVE_PATIENCE_S="0.5",
        ) as (process, url),
        ThreadPoolExecutor(3) as pool,
    ):
        waiting = [
            pool.submit(httpx.post, url + RESOURCE, json=HANGING, timeout=60) for _ in range(3)
        ]
        until(started.read_text)
        process.send_signal(ending)
        for answer in waiting:
            found = answer.result(timeout=20)
            assert (found.status_code, found.headers["Retry-After"]) == (503, "5")
            assert found.json() == {"detail": "the server is ending: ask again"}
        process.wait(timeout=20)
    assert SqliteDatabase(tmp_path / "service.db").count("queued", "running") == 0
    assert not any("Traceback" in line for line in lines)
    # All of it is JSON, also what uvicorn says.
    events = [json.loads(line)["event"] for line in lines]
    assert events[0] == "listening"


def test_an_impatient_ctrl_c_ends_no_server_before_its_jobs_are_closed():
    process = server_module._Server(uvicorn.Config("none:app"), Settings(), print)
    for _ in range(3):
        process.handle_exit(signal.SIGINT, None)
    assert process.should_exit
    assert not process.force_exit


def test_what_has_begun_is_ended_quietly_where_the_server_ends():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    sent = []

    async def run() -> None:
        gate = RequestMiddleware(application, Settings(), Metrics())
        headers = [(b"host", b"localhost")]
        scope = {
            "type": "http", "method": "GET", "path": "/x", "headers": headers,
            "server": ("127.0.0.1", 1),
        }  # fmt: skip

        async def send(message):
            sent.append(message["type"])

        task = asyncio.create_task(gate(scope, None, send))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    asyncio.run(run())
    assert sent == ["http.response.start", "http.response.body"]


def test_a_device_that_is_not_there_is_refused_before_anybody_is_answered(
    capfd, monkeypatch, tmp_path
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LAYERBENCH_SERVE_CHILD", "tests.support.service_child")
    monkeypatch.setattr(sys, "argv", ["layerbench", "serve", "--port", "0", "--device", "evil"])
    monkeypatch.setenv("LAYERBENCH_SERVE_DATABASE", str(tmp_path / "a.db"))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capfd.readouterr().err == "error: no device 'evil' on this machine\n"


@pytest.mark.parametrize(
    ("variables", "status", "says"),
    [
        ({"DEVICE": "evil"}, 3, "no device 'evil' on this machine"),
        ({"DATABASE": "."}, 3, ". is a folder: name a file with --database"),
        ({"HOST": "0.0.0.0"}, 1, "error: 0.0.0.0 can be reached"),
        ({"SECONDS": "inf"}, 1, "error: LAYERBENCH_SERVE_SECONDS should be a finite number"),
    ],
)
def test_under_uvicorn_too_a_start_that_fails_is_told_without_a_traceback(
    capfd, monkeypatch, tmp_path, variables, status, says
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    for name, value in {"CHILD": "tests.support.service_child", **variables}.items():
        monkeypatch.setenv(f"LAYERBENCH_SERVE_{name}", value)
    with pytest.raises(SystemExit) as left:
        uvicorn.run("layerbench.service:app", port=0)
    said = str(left.value.code) if status == 1 else ""
    assert status in (left.value.code, 1)
    said += capfd.readouterr().err
    assert says in said
    assert "Traceback" not in said
