"""The states that a job goes through, against a model of them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from pydantic import create_model

from layerbench.service.web.database import OPEN, STATES, Database
from layerbench.service.web.job_queue import versions

KEYS = st.sampled_from("abc")
ENDS = st.sampled_from([state for state in STATES if state not in (*OPEN, "done")])


class Jobs(RuleBasedStateMachine):
    """Any order of calls, also of ones that come too late, and servers that begin anew."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "service.db")
        # What should be: of each job its key and state; of each key its latest result.
        self.states: dict[str, list[str]] = {}
        self.results: dict[str, int] = {}
        self.count = 0

    @rule(target=jobs, key=KEYS)
    def add(self, key):
        job = self.database.add(key, {"question": key})
        self.states[job.id] = [key, "queued"]
        return job.id

    @rule(id=jobs)
    def start(self, id):
        assert self.database.start(id) == (self.states[id][1] == "queued")
        if self.states[id][1] == "queued":
            self.states[id][1] = "running"

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
        self.database = Database(Path(self.folder.name) / "service.db")
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
        self.folder.cleanup()


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_the_newest_result_comes_first(tmp_path):
    database = Database(tmp_path / "deep" / "service.db")
    for key in ("a", "b", "c"):
        id = database.add(key, {}).id
        database.start(id)
        database.finish(id, {"of": key})
    assert [result.key for result in database.results(2)] == ["c", "b"]
    assert [result.key for result in database.results(2, offset=2)] == ["a"]
    assert database.complaint() is None


def test_jobs_that_ended_long_ago_are_forgotten_and_results_are_not(tmp_path, monkeypatch):
    database = Database(tmp_path / "service.db")
    ids = [database.add(key, {}).id for key in ("a", "b", "c")]
    for id in ids[:2]:
        database.start(id)
    database.finish(ids[0], {})
    assert database.forget_old() == 0
    monkeypatch.setattr("layerbench.service.web.database.KEPT_S", -1.0)
    assert database.forget_old() == 1
    assert [database.job(id) is None for id in ids] == [True, False, False]
    assert database.result("a") is not None


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
        database = Database(path)
        assert [database.job(f"job {key}").what for key in "mp"] == ["measurement", "profile"]
        assert [database.result(key).question for key in "mp"] == [MEASURED, PROFILED]
        assert [result.key for result in database.results(1)] == ["m"]
        assert database.result("broken") is None
        id = database.add("q", PROFILED, "profile").id
        database.start(id)
        database.finish(id, {"new": True})
        assert (database.job(id).what, database.result("q").what) == ("profile", "profile")
        database.close()


# Opens copies of a store in processes that end before the first statement, the second and so on.
OPENED = """
import itertools, os, shutil, signal, sqlite3, sys
from pathlib import Path
from layerbench.service.web.database import Database

connect = sqlite3.connect
for number in itertools.count():
    path = shutil.copy(sys.argv[1], f"{sys.argv[1]}.{number}")
    if (child := os.fork()) == 0:
        left = itertools.count(-number)

        def traced(*words, **options):
            connection = connect(*words, **options)
            end = lambda _: next(left) or os.kill(os.getpid(), signal.SIGKILL)
            connection.set_trace_callback(end)
            return connection

        sqlite3.connect = traced
        Database(Path(path))
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
    for number in range(statements):
        copy = tmp_path / f"service.db.{number}"
        database = Database(copy)
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
    with pytest.raises(sqlite3.OperationalError):
        Database(path)
    assert [row[1] for row in other.execute("PRAGMA table_info(results)")] == ["name"]
    other.close()
