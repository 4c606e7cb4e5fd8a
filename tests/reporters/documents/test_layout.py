"""A kind of record of another package, in every format; what is loaded for a report."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Literal

import pytest

from layerbench import reporters
from layerbench.errors import UsageError
from layerbench.records.workload import Frozen
from layerbench.reporters import documents
from layerbench.reporters.documents.layout import (
    BRIEF,
    FULL,
    Document,
    Fields,
    Section,
    Table,
    Text,
    listed,
    table,
)


class Noise(Frozen):
    """A kind of record that layerbench does not know."""

    record: Literal["noise"] = "noise"
    place: str = "server <b>room\u202e"
    decibels: float = 61.5


HOURS = [{"from": "8.w", "dB": "1.25", "": ""}, {"from": "b|", "dB": "10.5", "": "!"}]


def noise(record: Noise) -> Document:
    return Document(
        title=f"Noise in the {record.place}",
        head=[Text("nobody was there", strong=True), Fields([("Level", f"{record.decibels} dB")])],
        sections=[
            table("Hours", HOURS, "c.l"),
            Section("Sums", [Table([], [["all", "12"], ["of two", "3"]], "lr")]),
            listed("Notes", []),
            Section("Rows", [Text("only in full")], formats=FULL),
            Section("", [Text("only in short")], formats=BRIEF),
            Section("All alone", [Text("nothing else", formats=BRIEF)], formats=FULL),
        ],
    )


@pytest.fixture
def offered(monkeypatch):
    other = SimpleNamespace(RECORD=Noise, document=noise)
    monkeypatch.setattr(documents, "offered", {"layerbench.documents": (other,)}.get)


TEXT = r"""Noise in the server <b>room\u202e
=================================
nobody was there
Level     61.5 dB

Hours
from     dB
----  -----
8.w    1.25
b|    10.5  !

Sums
  all     12
  of two   3

Rows
  only in full
"""

MARKDOWN = r"""### Noise in the server \x3cb>room\u202e

**nobody was there**

- Level: 61.5 dB

Hours:

| from   |   dB |    |
|--------|------|----|
| `8.w`  | 1.25 |    |
| `b\|`  | 10.5 | !  |

Sums:

- all: 12
- of two: 3

only in short
"""


def test_a_document_of_another_package_in_text(offered):
    assert reporters.render("txt", Noise()) == TEXT


def test_a_document_of_another_package_in_markdown(offered):
    assert reporters.render("md", Noise()) == MARKDOWN


def test_a_document_of_another_package_as_a_page(offered):
    page = reporters.render("html", Noise())
    assert r"<h1>Noise in the server &lt;b&gt;room\u202e</h1>" in page
    assert "<p><strong>nobody was there</strong></p>" in page
    assert "<dt>Level</dt><dd>61.5 dB</dd>" in page
    assert '<tr><th scope="row">b|</th><td class="r">10.5</td><td>!</td></tr>' in page
    assert "only in full" in page
    assert "only in short" not in page
    assert "All alone" not in page
    assert "Notes" not in page


def test_a_kind_of_record_that_nobody_has_a_document_for():
    with pytest.raises(UsageError, match="no report of noise records"):
        reporters.render("txt", Noise())


def test_rows_are_made_of_another_package_where_it_has_any(offered, monkeypatch):
    with pytest.raises(UsageError, match="no CSV of noise records"):
        reporters.render("csv", Noise())
    (other,) = documents.offered("layerbench.documents")
    monkeypatch.setattr(other, "rows", lambda _: ({"a": 1}, [{"b": "=2"}, {"c": None}]), False)
    assert reporters.render("csv", Noise()) == "a,b,c\n1,'=2,\n1,,\n"
    monkeypatch.setattr(other, "rows", lambda _: ({}, []))
    assert reporters.render("csv", Noise()) == ""


def test_a_comparison_does_not_wait_for_other_documents():
    code = (
        "import sys; from layerbench import reporters\n"
        "from tests.support.sample_comparisons import one_slower\n"
        "reporters.render('txt', one_slower())\n"
        "print(*(name for name in sys.modules if '.documents.' in name))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name.rpartition(".")[2] for name in done.stdout.split()]
    own = ["compared_kernels", "comparison"]
    assert sorted(loaded) == ["cells", *own, "layout", "screens", "shared"]
