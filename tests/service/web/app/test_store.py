"""The service's store: full disks, damage, removal, other programs, a kill at every statement."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from layerbench.records.contention import Waits
from layerbench.service.web import job_queue as jobs_module
from layerbench.service.web import job_runner
from layerbench.service.web.database import StoreDamaged
from layerbench.service.web.job_results import checked
from layerbench.service.web.sqlite_database import SqliteDatabase
from layerbench.service.web.worker_process import ChildFailed
from tests.support import service_child
from tests.support.sample_profiles import layered
from tests.support.service_process import until
from tests.support.serving import ASYNC, RESOURCE, RESULTS, ended, question


@pytest.mark.slow
def test_a_full_disk(serving, tmp_path):
    with serving() as client:
        assert client.post(RESOURCE, json=question()).status_code == 200
        connection = client.app.state.database._driver

        def pragma(words: str) -> int:
            return client.portal.call(lambda: connection.execute(f"PRAGMA {words}").fetchone()[0])

        pragma(f"max_page_count = {pragma('page_count') + 1}")
        found = [client.post(RESOURCE, json=question(f"quick{n}")) for n in range(20)]
        failed = [answer for answer in found if answer.status_code == 503]
        assert failed
        assert all("cannot be" in answer.json()["detail"] for answer in failed)
        assert client.get("/health/live").status_code == 200
        # What is there is whole, and still answered.
        assert client.post(RESOURCE, json=question()).json()["about"]["stored"]
        pragma("max_page_count = 1000000")
        assert client.post(RESOURCE, json=question("quick99")).status_code == 200
    stored = SqliteDatabase(tmp_path / "service.db")
    assert all(result.found["ram_peak"] == 200 for result in stored.results(100))
    assert stored.count("queued", "running") == 0


def test_a_store_that_another_program_holds(client, tmp_path):
    client.get("/api/v1/models")
    other = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = client.post(RESOURCE, json=question())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert client.get("/health/ready").status_code == 503
    other.execute("ROLLBACK")
    assert client.post(RESOURCE, json=question()).status_code == 200
    # What another version left in another form is not shown, and not misread.
    other.execute("UPDATE results SET found = json_remove(found, '$.steps')")
    other.execute("UPDATE jobs SET question = json_set(question, '$.colour', 'blue')")
    other.close()
    assert client.get(RESULTS).json() == []


@pytest.mark.slow
def test_a_job_that_another_program_changes_ends_for_those_who_wait(client, started, tmp_path):
    client.get("/api/v1/models")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, RESOURCE, json=question("slow"))
        until(started)
        # As a second server does that takes it for one of a server before.
        other = SqliteDatabase(tmp_path / "service.db")
        assert other.interrupt_open("the server ended") == 1
        other.close()
        answer = waiting.result(timeout=20)
    assert answer.status_code == 503
    assert "another program changed the store" in answer.json()["detail"]
    assert client.post(RESOURCE, json=question("slow")).status_code == 200


@pytest.mark.slow
def test_a_result_that_is_damaged_is_measured_anew(client, started, tmp_path):
    other = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
    for number, change in enumerate(("'{'", "'[]'", "json_set(found, '$.forward.value', 9e999)")):
        client.post(RESOURCE, json=question())
        client.post(RESOURCE, json=question("quick1"))
        other.execute(f"UPDATE results SET found = {change} WHERE question LIKE '%\"quick\"%'")
        listed = client.get(RESULTS)
        assert (listed.status_code, len(listed.json())) == (200, 1)
        answer = client.post(RESOURCE, json=question())
        assert (answer.status_code, answer.json()["about"]["stored"]) == (200, False)
        assert len(started()) == 3 + number
    other.close()


def test_a_page_that_cannot_be_read_makes_the_server_look_at_all_of_them(client, monkeypatch):
    def malformed(*_: object) -> None:
        raise StoreDamaged("database disk image is malformed")

    client.get("/api/v1/models")
    assert client.get("/health/ready").status_code == 200
    monkeypatch.setattr(SqliteDatabase, "results", malformed)
    monkeypatch.setattr(SqliteDatabase, "damage", lambda _: "the store is damaged: page 3")
    assert client.get(RESULTS).status_code == 503
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["detail"]) == (503, "the store is damaged: page 3")


@pytest.mark.slow
def test_a_result_that_says_little_is_told_and_measured_anew(client, started):
    for count in (1, 2):
        about = client.post(RESOURCE, json=question("unsteady")).json()["about"]
        assert about["unsteady"].startswith("the time of forward is uncertain, 45.00 µs to 426.0 s")
        assert about["stored"] is False
        assert len(started()) == count
    assert client.post(RESOURCE, json=question()).json()["about"]["unsteady"] == ""
    marks = {
        result["question"]["architecture"]: result["found"]["unsteady"] != ""
        for result in client.get(RESULTS).json()
    }
    assert marks == {"quick": False, "unsteady": True}


def test_a_profile_of_a_machine_that_was_too_busy_is_measured_anew():
    profile = layered()
    busy = profile.environment.machine.model_copy(update={"waits": Waits(rounds=0.9, time=0.5)})
    environment = profile.environment.model_copy(update={"machine": busy})
    found = {
        "profile": profile.model_copy(update={"environment": environment}).model_dump(
            mode="json", by_alias=True
        ),
        "structure": service_child.structure("tiny").model_dump(mode="json"),
        "memory": None,
    }
    assert "too busy" in checked("profile", found)
    found["profile"] = profile.model_dump(mode="json", by_alias=True)
    assert checked("profile", found) == ""
    for damage in ({"structure": None}, {"memory": {}}, {"profile": []}):
        with pytest.raises(ChildFailed, match="what is no result"):
            checked("profile", {**found, **damage})


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.rename(path.with_name("before.db"))
    shutil.copy(path.with_name("before.db"), path)


def journal_removed(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.slow
@pytest.mark.parametrize("change", [removed, replaced, journal_removed, emptied])
def test_a_store_that_is_no_longer_there(client, tmp_path, change):
    assert client.post(RESOURCE, json=question()).status_code == 200
    # So that it has pages to lose: they come from the journal.
    other = sqlite3.connect(tmp_path / "service.db")
    other.execute("PRAGMA wal_checkpoint").fetchall()
    assert client.get("/health/ready").status_code == 200
    change(tmp_path / "service.db")
    answer = client.get("/health/ready")
    assert (answer.status_code, "removed, replaced" in answer.json()["detail"]) == (503, True)
    # What is known is answered, and nothing is measured that would be lost.
    if change is removed:
        assert client.post(RESOURCE, json=question()).status_code == 200
    assert client.post(RESOURCE, json=question("quick1")).status_code == 503
    assert client.get("/health/live").status_code == 200
    other.close()


def test_a_page_that_another_program_damages_is_told_by_the_next_ready(client, tmp_path):
    assert client.post(RESOURCE, json=question()).status_code == 200
    assert client.get("/health/ready").status_code == 200
    other = sqlite3.connect(tmp_path / "service.db")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    other.close()
    size = (tmp_path / "service.db").stat().st_size
    with (tmp_path / "service.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    # Between the damage and the look, the service itself may write.
    client.app.state.database.complaint()
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert re.search("damaged|malformed|removed", answer.json()["detail"])
    assert client.get("/health/ready").status_code == 503


def test_a_device_that_another_process_holds(client, tmp_path, monkeypatch):
    monkeypatch.setattr(job_runner, "HELD_S", 0.1)
    client.get("/api/v1/models")
    with FileLock(tmp_path / "layerbench-cpu.lock"):
        job = client.post(RESOURCE, json=question(), headers=ASYNC).json()["id"]
        until(lambda: client.get("/health/ready").status_code == 503)
        assert "layerbench-cpu.lock" in client.get("/health/ready").json()["detail"]
    assert ended(client, job)["state"] == "done"
    assert client.get("/health/ready").status_code == 200


def test_a_deadline_says_that_another_process_held_the_device(serving, tmp_path):
    with serving(deadline=2.0) as client, FileLock(tmp_path / "layerbench-cpu.lock"):
        detail = client.post(RESOURCE, json=question()).json()["detail"]
        ready = client.get("/health/ready")
    assert re.search("longer than 2 s.*another process held the device for [12] s of it", detail)
    assert (ready.status_code, "layerbench-cpu.lock" in ready.json()["detail"]) == (503, True)


def test_a_lock_that_cannot_be_taken(serving, tmp_path):
    lock = tmp_path / "layerbench-cpu.lock"
    lock.mkdir()
    with serving() as client:
        for answer in (client.post(RESOURCE, json=question()), client.get("/health/ready")):
            assert (answer.status_code, "cannot be taken" in answer.json()["detail"]) == (503, True)
        lock.rmdir()
        assert client.get("/health/ready").status_code == 200


def test_where_all_connections_wait_a_job_is_given(serving, started, monkeypatch):
    monkeypatch.setattr(jobs_module, "WAITING_SHARE", 0.0)
    with serving() as client:
        answer = client.post(RESOURCE, json=question("slow"))
        assert answer.status_code == 202
        news = client.get(f"/api/v1/jobs/{answer.json()['id']}/events")
        assert (news.status_code, news.headers["Retry-After"]) == (503, "5")
        assert ended(client, answer.json()["id"])["state"] == "done"


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from layerbench.service.web.sqlite_database import SqliteDatabase

# A process for each number of statements, with what is loaded here: number by number, its end is
# told in a line, and the first that ends by itself is the last.
for number in range(200):
    child = os.fork()
    if not child:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("ended", status, flush=True)
    if status != -signal.SIGKILL:
        sys.exit()

left = number

def begun(statement):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

def connected(*words, **options):
    connection = connect(*words, **options)
    connection.set_trace_callback(begun)
    return connection

connect, sqlite3.connect = sqlite3.connect, connected
store = SqliteDatabase(Path(sys.argv[1]) / f"{number}.db")
for key in ("done", "failed", "cancelled"):
    print(key, store.add(key, {"question": key}).id, flush=True)
first, second, third = (store._driver.execute("SELECT id FROM jobs WHERE key = ?", (key,))
                        .fetchone()[0] for key in ("done", "failed", "cancelled"))
store.take()
print("finished", store.finish(first, {"found": "x" * 10000}), flush=True)
store.take()
store.end(second, "failed", "why")
store.end(third, "cancelled")
store.interrupt_open("why")
"""


@pytest.mark.slow
def test_killed_before_every_statement(tmp_path):
    """What was said to be done is there, and whole; what was not is either there or not."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=True
    )
    ends, said = set(), []
    number = 0
    for line in done.stdout.splitlines():
        words = line.split()
        if words[0] != "ended":
            said.append(words)
            continue
        store = SqliteDatabase(tmp_path / f"{number}.db")
        store.interrupt_open("the server ended")
        for key, id in (words for words in said if words[0] != "finished"):
            job = store.job(id)
            assert (job.key, job.question) == (key, {"question": key})
            assert job.state in ("done", "failed", "cancelled", "interrupted")
            result = store.result(key)
            assert (result is not None) == (job.state == "done")
            ends.add((key, job.state))
            assert result is None or result.found == {"found": "x" * 10000}
        if ["finished", "True"] in said:
            assert store.result("done") is not None
        store.close()
        status = int(words[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL, done.stderr
        said = []
        number += 1
    else:
        raise AssertionError("it never came to its end")
    assert number > 25
    wanted = {(key, key) for key in ("done", "failed", "cancelled")}
    assert ends == wanted | {(key, "interrupted") for key, _ in wanted}
