"""The store in PostgreSQL: how it begins, where it cannot, and what happens where it goes away."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from layerbench import cli
from layerbench.errors import UsageError
from layerbench.service.web import schema_revisions, tables
from layerbench.service.web.job_events import JobEvents
from layerbench.service.web.job_relay import MOST, messages_of
from layerbench.service.web.settings import Settings
from layerbench.service.web.store_opening import opened
from layerbench.service.web.store_place import shown, without_secrets
from tests.support import postgresql
from tests.support.service_process import until
from tests.support.serving import ASYNC, RESOURCE, RESULTS, ended, question

NOBODY = "postgresql://user:s3cret-word@127.0.0.1:1/store?sslmode=disable"


# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("postgresql://u:pw@host:1/db", "postgresql://u@host:1/db"),
        ("postgresql://u:p@w:x/y@host/db", "postgresql://u@host/db"),
        ("postgres:///db?host=/run&password=pw", "postgres:///db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("folder/a.db", "folder/a.db"),
    ],
)
def test_an_address_is_shown_without_its_password(place, said):
    assert shown(place) == said


def test_no_message_shows_a_password():
    place = "postgresql://u:w0rd/of@mine@host/db?password=0ther"
    told = without_secrets('no host "of@mine@host", port "w0rd", 0ther, w0rd/of@mine', place)
    assert told == 'no host "of@***@host", port "***", ***, ***'
    assert "s3cret" not in repr(Settings(database=NOBODY))
    assert without_secrets("as it is", "a.db") == "as it is"


def test_a_database_that_cannot_be_reached(capsys, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr(sys, "argv", ["layerbench", "serve", "--database", NOBODY])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: the database postgresql://user@127.0.0.1:1/store cannot be used")
    assert "lets this user make tables, or take another --database" in said
    assert ("s3cret" in said, said.count("\n")) == (False, 1)


def test_without_its_driver_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "layerbench.service.web.postgresql_database", raising=False)
    with pytest.raises(UsageError, match=r'pip install "layerbench\[postgresql\]"'), opened(NOBODY):
        pass


# --- its form ----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    if request.param == "sqlite":
        yield create_engine(f"sqlite:///{tmp_path}/a.db")
        return
    postgresql.programs()
    url = postgresql.server().url(postgresql.server().database())
    found = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield found
    found.dispose()


def test_the_migrations_come_to_what_a_new_store_has(engine):
    with engine.begin() as connection:
        schema_revisions.upgrade(connection)
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == schema_revisions.REVISIONS[-1]
    script = ScriptDirectory(str(schema_revisions.MIGRATIONS))
    found = [one.revision for one in script.walk_revisions()]
    assert tuple(reversed(found)) == schema_revisions.REVISIONS
    with engine.begin() as connection:
        # One of the version before, with what it should not have had.
        tables.metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        schema_revisions.upgrade(connection, "0001")
        for id, moment in (("later", 2), ("first", 1)):
            connection.exec_driver_sql(
                "INSERT INTO jobs (id, key, question, state, created_at) "
                f"VALUES ('{id}', 'k', '{{}}', 'queued', {moment})"
            )
        schema_revisions.bring_up(connection)
        states = dict(connection.exec_driver_sql("SELECT id, state FROM jobs").fetchall())
    assert states == {"first": "queued", "later": "interrupted"}


def test_a_database_of_a_later_version_is_left_alone():
    url = postgresql.store()
    postgresql.server().run("UPDATE alembic_version SET version_num = '9999'", url)
    with pytest.raises(UsageError, match=r"9999\); upgrade layerbench, or"), opened(url):
        pass


def test_a_file_of_a_later_version_is_left_alone(tmp_path):
    with opened(tmp_path / "a.db"):
        pass
    with sqlite3.connect(tmp_path / "a.db") as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    again = opened(tmp_path / "a.db")
    with pytest.raises(UsageError, match=r"9999\); upgrade layerbench, or"), again:
        pass


def test_two_that_begin_at_once_make_the_tables_once():
    postgresql.programs()
    url = postgresql.server().url(postgresql.server().database())

    def begin(_: int) -> str | None:
        with opened(url) as database:
            return database.complaint()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(begin, range(3))) == [None] * 3


# --- news between servers ----------------------------------------------------------------------


def test_news_fit_into_messages():
    assert list(messages_of("id", ("running", {"path": "a"}))) == [
        {"news": "id", "kind": "running", "content": {"path": "a"}}
    ]
    rows = [[f"layer{number}", 0.5, 0.25] for number in range(1000)]
    parts = list(messages_of("id", ("rows", {"rounds": 3, "rows": rows})))
    assert all(len(str(part)) < MOST for part in parts)
    news = JobEvents()
    for part in parts:
        news.tell(part["kind"], part["content"])
    assert [row for part in parts for row in part["content"]["rows"]] == rows
    # Nothing could divide it.
    assert list(messages_of("id", ("running", {"path": "a" * 10_000}))) == []


# --- a database that goes away -------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Iterator[postgresql.Server]:
    """A server that a test may stop."""
    found = postgresql.Server()
    yield found
    found.remove()


@pytest.mark.slow
def test_a_database_that_goes_away_and_comes_back(serving, own, tmp_path):
    with (
        serving(database=own.url(own.database())) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert client.post(RESOURCE, json=question()).status_code == 200
        assert client.get("/health/ready").status_code == 200
        running = client.post(RESOURCE, json=question("slow"), headers=ASYNC).json()["id"]
        until(lambda: client.get(f"/api/v1/jobs/{running}").json()["state"] == "running")
        behind = pool.submit(client.post, RESOURCE, json=question("quick2"))
        until(lambda: client.app.state.jobs._queued)
        own.stop()
        # Who knows when that would be.
        assert behind.result(timeout=20).status_code == 503
        for answer in (
            client.post(RESOURCE, json=question()),
            client.post(RESOURCE, json=question("quick1")),
            client.get(RESULTS),
            client.get("/health/ready"),
        ):
            assert answer.status_code == 503
            assert "the store cannot be" in answer.json()["detail"]
            assert "\n" not in answer.json()["detail"]
        assert client.get("/health/live").status_code == 200
        own.start()
        # What was measured meanwhile is stored once it can be.
        until(lambda: client.get("/health/ready").status_code == 200)
        assert ended(client, running)["state"] == "done"
        assert client.post(RESOURCE, json=question("quick1")).status_code == 200
        for name in ("slow", "quick2"):
            until(lambda name=name: stored(client, name))


def stored(client: TestClient, name: str) -> bool:
    return client.post(RESOURCE, json=question(name)).json()["about"]["stored"]


@pytest.mark.slow
def test_a_database_that_stands_still_holds_up_no_other_answer(serving, own, monkeypatch):
    """Nor the end of the process."""
    monkeypatch.setattr("layerbench.service.web.postgresql_database.CALL_S", 0.3)
    with serving(database=own.url(own.database())) as client:
        assert client.post(RESOURCE, json=question()).status_code == 200
        own.pause()
        try:
            with ThreadPoolExecutor(12) as pool:
                asked = [pool.submit(client.post, RESOURCE, json=question()) for _ in range(12)]
                time.sleep(0.1)
                assert client.get("/health/live").status_code == 200
                assert not all(one.done() for one in asked)
                for one in asked:
                    assert one.result(timeout=20).status_code == 503
                    assert "did not answer in 0.3 s" in one.result().json()["detail"]
        finally:
            own.pause(paused=False)
        until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post(RESOURCE, json=question()).json()["about"]["stored"]
        own.pause()
        threads = client.app.state.database._threads._threads
    try:
        until(lambda: not any(thread.is_alive() for thread in threads))
    finally:
        own.pause(paused=False)
