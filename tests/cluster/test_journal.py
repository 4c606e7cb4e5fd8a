from __future__ import annotations

import pytest

from layerbench.cluster import journal
from layerbench.cluster.journal import NAME, Entry, Journal, key_of
from layerbench.errors import OutputError
from layerbench.records.sweep import Sweep
from layerbench.records.timing import Profile
from layerbench.reporters import json
from tests.support.clusters import column, sweep


def entry(key: str, *files: str) -> Entry:
    return Entry(key, f"point {key}", "cpu", "a (10.0.0.1, 1f)", 0, files)


@pytest.fixture
def two(tmp_path):
    """A journal of two tasks, each with a file."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
        Journal(tmp_path).add(entry(name, name))
    return tmp_path


def test_a_journal_gives_what_was_written(two):
    assert Journal(two).read() == {"a": entry("a", "a"), "b": entry("b", "b")}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_line_that_is_torn_is_none_and_swallows_none(two, cut):
    path = two / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(Journal(two).read()) == ({"a", "b"} if cut == 1 else {"a"})
    Journal(two).add(entry("c", "a"))
    assert set(Journal(two).read()) == ({"a", "b", "c"} if cut == 1 else {"a", "c"})


@pytest.mark.parametrize("line", ["null", "[]", "3", "{}", '{"files": 3}', '{"key": "x"}', "\0"])
def test_a_line_of_something_else_is_none(two, line):
    with (two / NAME).open("a") as file:
        file.write(f"{line}\n")
    assert set(Journal(two).read()) == {"a", "b"}


def test_a_task_whose_file_is_gone_is_none(two):
    (two / "a").unlink()
    assert set(Journal(two).read()) == {"b"}


def test_no_folder_keeps_nothing_and_an_absent_one_holds_nothing(tmp_path):
    Journal(None).add(entry("a"))
    assert Journal(None).read() == Journal(tmp_path / "absent").read() == {}


def test_a_journal_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "absent").add(entry("a"))


def test_the_record_of_a_task_comes_back_and_a_damaged_one_does_not(tmp_path):
    (tmp_path / "a.json").write_text(json.render(sweep("m", 2)))
    (tmp_path / "b.json").write_text(json.render(sweep("m", 2))[:200])
    for key in ("a", "b"):
        Journal(tmp_path).add(entry(key, f"{key}.json"))
    Journal(tmp_path).add(entry("nothing"))
    held = Journal(tmp_path)
    assert held.record("a", Sweep) == sweep("m", 2)
    assert held.record("a", Profile) is None
    assert [held.record(key, Sweep) for key in ("b", "nothing", "unknown")] == [None] * 3


def test_whatever_tells_tasks_apart_is_in_the_key(monkeypatch):
    usual = (("sweep", "--batches=2"), "12ab", column())
    keys = {
        key_of(*usual),
        key_of(("sweep", "--batches=4"), *usual[1:]),
        key_of(usual[0], "", usual[2]),
        key_of(*usual[:2], column(name="fast")),
        key_of(*usual[:2], column(slug="a100")),
        key_of(*usual[:2], column(torch="2.11.0")),
    }
    assert len(keys) == 6
    assert key_of(*usual) in keys
    monkeypatch.setattr(journal, "__version__", "0.1")
    assert key_of(*usual) not in keys
