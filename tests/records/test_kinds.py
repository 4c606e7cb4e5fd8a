"""A kind of record is a file in each of the folders for records, reports and measuring."""

from __future__ import annotations

import importlib
import sys

import pytest

import layerbench
from layerbench import cli, records, reporters
from layerbench.errors import UsageError
from layerbench.records import kinds
from layerbench.records.bundle import Bundle, place_of
from layerbench.reporters import documents

RECORD = """
from __future__ import annotations
from typing import Literal
from layerbench.records.bounds import Time
from layerbench.records.kinds import Record

class Echo(Record):
    record: Literal["echo"] = "echo"
    after_s: Time
"""
DOCUMENT = """
from __future__ import annotations
from layerbench.records.echo import Echo
from layerbench.reporters.documents.layout import Document, Fields
from layerbench.units import duration

def document(record: Echo) -> Document:
    return Document("An echo", [Fields([("After", duration(record.after_s))])], [])
"""
PROFILER = """
from __future__ import annotations
from layerbench.records.echo import Echo

def profile_echo(metres: float) -> Echo:
    return Echo(after_s=2 * metres / 340)
"""


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """A file of this kind; each of the three files lies in its package, as far as Python knows."""
    for name, text in (
        ("records", RECORD),
        ("reporters.documents", DOCUMENT),
        ("profilers", PROFILER),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "echo.py").write_text(text)
        package = importlib.import_module(f"layerbench.{name}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    path = tmp_path / "wall.json"
    path.write_text('{"record": "echo", "schema_version": 1, "after_s": 60.0}')
    yield path
    for name in [name for name in sys.modules if name.endswith(".echo")]:
        del sys.modules[name]
    kinds._DEFINED.pop("echo", None)
    kinds.named.cache_clear()


def test_three_files_make_a_kind(echo, tmp_path, monkeypatch, capsys):
    record = layerbench.read(echo)
    assert (record.kind(), record.after_s) == ("echo", 60)
    assert "echo" in kinds.names()
    assert reporters.render("txt", record) == "An echo\n=======\nAfter     60.00 s\n"
    assert reporters.render("md", record) == "### An echo\n\n- After: 60.00 s\n"
    assert "<dt>After</dt><dd>60.00 s</dd>" in reporters.render("html", record)
    monkeypatch.setattr(sys, "argv", ["layerbench", "export", str(echo), "--format", "json"])
    with pytest.raises(SystemExit):
        cli.main()
    (tmp_path / "again.json").write_text(capsys.readouterr().out)
    assert layerbench.read(tmp_path / "again.json") == record
    measured = importlib.import_module("layerbench.profilers.echo").profile_echo(10_200)
    assert measured == record


def test_a_kind_without_a_report_says_so(echo):
    del documents.__path__[-1]
    record = layerbench.read(echo)
    with pytest.raises(UsageError, match="there is no report of echo records: take json"):
        reporters.render("txt", record)
    with pytest.raises(UsageError, match="there is no CSV of echo records"):
        reporters.render("csv", record)


def test_a_kind_has_its_place_in_a_bundle_by_the_fields_types(echo):
    places = {kind: place_of(kinds.named(kind).model_construct()) for kind in kinds.names()}
    held = {kind: place for kind, place in places.items() if place}
    assert held == {
        "comparison": "comparison",
        "latency estimate": "latency",
        "memory": "memory",
        "memory estimate": "memory",
        "profile": "profile",
        "structure": "structure",
        "training profile": "training",
    }
    assert set(held.values()) | {"absent", "baseline", "record", "schema_version"} == set(
        Bundle.model_fields
    )


def test_a_kind_of_ours_is_not_taken_over():
    ours = kinds.named("sweep")
    type("Sweep", (kinds.Record,), {"__annotations__": {"record": str}, "record": "sweep"})
    assert kinds.named("sweep") is ours
    assert ours.__module__ == f"{records.__name__}.sweep"
