from __future__ import annotations

import pytest

from layerbench.cluster.order import Order, Outcome
from layerbench.records.sweep import Sweep
from layerbench.records.timing import Profile
from layerbench.reporters import json
from tests.support.clusters import sweep


def test_an_order_travels_as_plain_values():
    packed = Order(("sweep", "--batches=2"), "cuda:1", samples=True).packed()
    assert packed == {"words": ["sweep", "--batches=2"], "device": "cuda:1", "samples": True}


@pytest.mark.parametrize(
    ("status", "complaint", "why"),
    [
        (0, "warning: the machine is busy", ""),
        (2, "error: no such model", "no such model"),
        (3, "", "it ended with status 3"),
        (-9, "", "its process was ended by signal 9 (out of memory, perhaps)"),
    ],
)
def test_a_failure_is_a_sentence(status, complaint, why):
    assert Outcome(status, "", complaint).failure == why


def test_the_record_is_from_the_output_or_from_the_longest_file():
    record = sweep("m", 2)
    text = json.render(record)
    assert Outcome(0, text).record(Sweep) == record
    files = {"a/whole.json": b"{}", "a/layers.json": text.encode(), "a/layers.npz": b"12"}
    written = Outcome(0, "", files=files)
    assert (written.record(Sweep), written.samples()) == (record, b"12")
    assert Outcome(0, text).record(Profile) is None
    assert Outcome(0, "").record(Sweep) is None
    assert Outcome(0, text).samples() is None
