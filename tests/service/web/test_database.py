"""The states that a job goes through, against a model of them."""

from __future__ import annotations

import functools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pydantic import create_model

from layerbench.service.web.database import Database, NoRoom, StoreError
from layerbench.service.web.job_results import versions
from layerbench.service.web.sqlite_database import SqliteDatabase
from layerbench.service.web.tables import OPEN, STATES, jobs, results, servers
from tests.support.stores import new_store, on_both

KEYS = st.sampled_from("abc")
ENDS = st.sampled_from([state for state in STATES if state not in (*OPEN, "done")])
# One of SQLite takes a tenth of a second, one of PostgreSQL four times as long.
EXAMPLES = {"sqlite": 30, "postgresql": 6}


class Jobs(RuleBasedStateMachine):
    """Any order of calls, also of ones that come too late, and servers that begin anew."""

    jobs = Bundle("jobs")

    def __init__(self, opened: Callable[[], Database]) -> None:
        super().__init__()
        self.opened = opened
        self.database = opened()
        # What should be: of each job its key and state; of each key its latest result.
        self.states: dict[str, list[str]] = {}
        self.results: dict[str, int] = {}
        self.count = 0

    @rule(target=jobs, key=KEYS)
    def add(self, key):
        job = self.database.add(key, {"question": key})
        open_ones = [id for id, found in self.states.items() if found in ([key, s] for s in OPEN)]
        # Each question is open once.
        assert open_ones in ([], [job.id])
        self.states.setdefault(job.id, [key, "queued"])
        return job.id

    @rule()
    def take(self):
        """The one that waits longest; before it one whose taker does not know that it has it."""
        job = self.database.take()
        for state in ("running", "queued"):
            found = [id for id, (_, is_now) in self.states.items() if is_now == state]
            if found:
                assert job.id == found[0]
                self.states[job.id][1] = "running"
                return
        assert job is None

    @rule(id=jobs)
    def finish(self, id):
        self.count += 1
        key, state = self.states[id]
        assert self.database.finish(id, {"number": self.count}) == (state == "running")
        if state == "running":
            self.states[id][1] = "done"
            self.results[key] = self.count

    @rule(id=jobs, state=ENDS)
    def end(self, id, state):
        is_open = self.states[id][1] in OPEN
        assert self.database.end(id, state, "why") == is_open
        if is_open:
            self.states[id][1] = state

    @rule()
    def begin_anew(self):
        self.database.close()
        self.database = self.opened()
        found = [id for id, (_, state) in self.states.items() if state in OPEN]
        assert self.database.interrupt_open("why") == len(found)
        for id in found:
            self.states[id][1] = "interrupted"

    @invariant()
    def is_as_it_should_be(self):
        for id, (key, state) in self.states.items():
            job = self.database.job(id)
            assert (job.key, job.state) == (key, state)
            assert (job.ended_at is None) == (state in OPEN)
        for key in "abc":
            result = self.database.result(key)
            number = None if result is None else result.found["number"]
            assert number == self.results.get(key)
        for state in STATES:
            told = sum(state == found for _, found in self.states.values())
            assert self.database.count(state) == told

    def teardown(self):
        self.database.close()


@pytest.mark.slow
@on_both
def test_any_order_of_calls(engine, tmp_path):
    new = {
        "sqlite": lambda: new_store(engine, tmp_path),
        "postgresql": functools.partial(emptied, new_store(engine, tmp_path)),
    }
    run_state_machine_as_test(
        lambda: Jobs(new[engine]()),
        settings=settings(max_examples=EXAMPLES[engine], stateful_step_count=20, deadline=None),
    )


def emptied(opened: Callable[[], Database]) -> Callable[[], Database]:
    """A store without a row: quicker than a new database."""
    store = opened()
    with store._change() as connection:
        for table in (jobs, results):
            connection.execute(table.delete())
    store.close()
    return opened


@on_both
def test_the_newest_result_comes_first(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    for key in ("a", "b", "c"):
        id = database.add(key, {}).id
        database.take()
        database.finish(id, {"of": key})
    assert [result.key for result in database.results(2)] == ["c", "b"]
    assert [result.key for result in database.results(2, offset=2)] == ["a"]
    assert database.complaint() is None


@on_both
def test_jobs_that_ended_long_ago_are_forgotten_and_results_are_not(engine, tmp_path, monkeypatch):
    database = new_store(engine, tmp_path)()
    ids = [database.add(key, {}).id for key in ("a", "b", "c")]
    assert database.take().id == ids[0]
    database.finish(ids[0], {})
    assert database.forget_old() == 0
    monkeypatch.setattr("layerbench.service.web.database.KEPT_S", -1.0)
    assert database.forget_old() == 1
    assert [database.job(id) is None for id in ids] == [True, False, False]
    assert database.result("a") is not None


@on_both
def test_who_looked_before_a_result_was_there_is_given_the_job_that_found_it(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    first = database.add("k", {}, anew=False)
    assert database.add("k", {}, anew=False) == first
    database.take()
    database.finish(first.id, {"number": 1})
    # Its asker looked, was held up, and asks now.
    assert database.add("k", {}, anew=False).id == first.id
    # Who saw the result, and cannot take it for an answer, has it measured; as who wants that.
    second = database.add("k", {}, rejected=database.result("k"), anew=False)
    assert (second.id == first.id, second.state) == (False, "queued")
    database.take()
    database.finish(second.id, {"number": 2})
    assert database.add("k", {}, anew=False).id == second.id
    assert database.add("k", {}, anew=True).id not in (first.id, second.id)


@on_both
def test_the_queue_is_bounded(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    ids = [database.add(key, {}, most=2).id for key in "ab"]
    with pytest.raises(NoRoom):
        database.add("c", {}, most=2)
    # Who asks for what waits already takes no room.
    assert database.add("b", {}, most=2).id == ids[1]
    assert database.ahead() == {ids[0]: 0, ids[1]: 1}
    database.take()
    assert database.ahead() == {ids[1]: 1}
    database.add("c", {}, most=2)


@on_both
def test_a_server_takes_what_it_can_run(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    here, there = (database.add(key, {}, target=key).id for key in ("cpu", "gpu"))
    assert database.take("one", []) is None
    assert database.take("one", ["gpu", "tpu"]).id == there
    assert database.take("other", ["gpu"]) is None
    # What it took and does not know of is still its own.
    assert database.take("one", ["cpu"]).id == there
    database.end(there, "failed")
    assert database.take("one", ["cpu"]).id == here


@on_both
def test_a_damaged_job_holds_up_no_other(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    damaged, next_one = (database.add(key, {}).id for key in "ab")
    with database._change() as connection:
        connection.execute(jobs.update().where(jobs.c.id == damaged).values(created_at=-9e99))
    assert database.take().id == next_one
    assert database.states([damaged]) == {damaged: ("failed", "store: the job is damaged")}


@on_both
def test_what_a_lost_server_ran_is_interrupted_and_what_waits_is_taken_over(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    for server, targets in (("lost", ["cpu", "lost"]), ("other", ["cpu"])):
        database.beat(server, f"host of {server}", targets)
    ids = [database.add(key, {}, target=key).id for key in ("cpu", "lost")]
    ids.append(database.add("next", {}, target="cpu").id)
    assert database.take("lost", ["cpu"]).id == ids[0]
    assert database.bury(60.0) == []
    with database._change() as connection:
        connection.execute(servers.update().where(servers.c.id == "lost").values(seen_at=0.0))
    # What just came may be of a server that just began.
    assert database.bury(60.0) == ["host of lost"]
    assert [database.job(id).state for id in ids] == ["interrupted", "queued", "queued"]
    assert "the server on host of lost ended" in database.job(ids[0]).reason
    assert not database.finish(ids[0], {"too": "late"})
    with database._change() as connection:
        connection.execute(jobs.update().where(jobs.c.id == ids[1]).values(created_at=0.0))
    assert database.bury(60.0) == []
    assert database.job(ids[1]).reason == "no server is left that could run the job"
    assert database.take("other", ["cpu"]).id == ids[2]


@on_both
def test_a_server_that_ends_leaves_to_others_what_they_can_run(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    database.beat("one", "a", ["cpu", "gpu"])
    database.beat("other", "b", ["cpu"])
    running, waiting, nowhere = (
        database.add(key, {}, target=target).id
        for key, target in (("a", "cpu"), ("b", "cpu"), ("c", "gpu"))
    )
    assert database.take("one", ["cpu"]).id == running
    database.leave("one", "the server was stopped")
    states = database.states([running, waiting, nowhere])
    assert states == {
        running: ("interrupted", "the server was stopped"),
        waiting: ("queued", ""),
        nowhere: ("interrupted", "the server was stopped"),
    }


@on_both
def test_reasons_that_no_engine_stores_as_they_are(engine, tmp_path):
    database = new_store(engine, tmp_path)()
    id = database.add("a", {"text": "\0"}).id
    database.end(id, "failed", "é \0 \udc80")
    assert (database.job(id).question, database.job(id).reason) == ({"text": "\0"}, "é  \\udc80")


# As the first version made it, which told the kind of a job by the fields of its question.
FIRST = """
CREATE TABLE results (
    key TEXT PRIMARY KEY, question TEXT NOT NULL, found TEXT NOT NULL, measured_at REAL NOT NULL
) STRICT;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, question TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL, started_at REAL, ended_at REAL
) STRICT;
CREATE TABLE tries (id INTEGER PRIMARY KEY, at REAL NOT NULL) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);
"""
MEASURED, PROFILED = {"architecture": "resnet18"}, {"architecture": "resnet18", "iterations": 30}


def first_store(path: Path) -> None:
    """A store of the first version with a measurement, a profile, and what is no question."""
    old = sqlite3.connect(path)
    old.executescript(FIRST)
    questions = {"m": json.dumps(MEASURED), "p": json.dumps(PROFILED), "broken": "{"}
    for moment, (key, question) in enumerate(questions.items()):
        old.execute("INSERT INTO results VALUES (?, ?, ?, ?)", (key, question, "{}", moment))
        old.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, 'done', '', 0, 1, 2)", (f"job {key}", key, question)
        )
    old.commit()
    old.close()


def test_a_store_of_the_first_version_keeps_all_that_it_has(tmp_path):
    path = tmp_path / "service.db"
    first_store(path)
    for _ in range(2):
        database = SqliteDatabase(path)
        assert [database.job(f"job {key}").what for key in "mp"] == ["measurement", "profile"]
        assert [database.result(key).question for key in "mp"] == [MEASURED, PROFILED]
        assert [result.key for result in database.results(1)] == ["m"]
        assert database.result("broken") is None
        id = database.add("q", PROFILED, "profile").id
        database.take()
        database.finish(id, {"new": True})
        assert (database.job(id).what, database.result("q").what) == ("profile", "profile")
        database.close()


# Opens copies of a store in processes that end before the first statement, the fourth and so on.
OPENED = """
import itertools, os, shutil, signal, sqlite3, sys
from pathlib import Path
import alembic.command
from layerbench.service.web.sqlite_database import SqliteDatabase

connect = sqlite3.connect
for number in itertools.count(0, 3):
    path = shutil.copy(sys.argv[1], f"{sys.argv[1]}.{number}")
    if (child := os.fork()) == 0:
        left = itertools.count(-number)

        def traced(*words, **options):
            connection = connect(*words, **options)
            end = lambda _: next(left) or os.kill(os.getpid(), signal.SIGKILL)
            connection.set_trace_callback(end)
            return connection

        sqlite3.connect = traced
        SqliteDatabase(Path(path))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(number)
        break
"""


def test_a_store_of_the_first_version_is_whole_wherever_its_opening_ends(tmp_path):
    path = tmp_path / "service.db"
    first_store(path)
    command = [sys.executable, "-c", OPENED, str(path)]
    statements = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert statements > 15
    for number in range(0, statements, 3):
        copy = tmp_path / f"service.db.{number}"
        database = SqliteDatabase(copy)
        kinds = [database.job(f"job {key}").what for key in ("m", "p", "broken")]
        assert kinds == ["measurement", "profile", "damaged"]
        assert [database.result(key).question for key in "mp"] == [MEASURED, PROFILED]
        assert [result.key for result in database.results(2)] == ["m"]
        database.close()


def test_another_wording_of_a_form_is_no_other_form():
    def form(words: str, **fields: type) -> str:
        kind = create_model("Form", __doc__=words, **{n: (f, ...) for n, f in fields.items()})
        return versions(kind)["form"]

    assert form("What it is.", description=str) == form("In other words.", description=str)
    assert form("What it is.", description=str) != form("What it is.", description=int)
    assert form("What it is.") != form("What it is.", description=str)


def test_a_table_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "service.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE results (name TEXT)")
    with pytest.raises(StoreError, match="no such column"):
        SqliteDatabase(path)
    assert [row[1] for row in other.execute("PRAGMA table_info(results)")] == ["name"]
    other.close()
