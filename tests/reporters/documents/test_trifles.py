"""Rows that take next to nothing share one; JSON and csv have each of them."""

from __future__ import annotations

from layerbench import reporters
from layerbench.records.memory import MemoryReport
from layerbench.records.training_step import TrainingProfile
from layerbench.records.view import View
from tests.support.every_kind import RECORDS
from tests.support.sample_bundles import memory
from tests.support.sample_profiles import summary

FOLDED = "2 rows under 0.1 % each"


def tree_of(text: str) -> str:
    return text[text.index("\nLayers (") :]


def test_layers_that_allocate_next_to_nothing_share_a_row() -> None:
    record = memory()
    rows = [
        row.model_copy(update={"self_allocated": size, "allocated": size})
        for row in record.rows
        for size in [2**20 if row.path in ("", "features", "features.2") else 600]
    ]
    record = record.model_copy(update={"rows": tuple(rows)})
    check(record, "    3 rows under 0.1 % each")


def check(record: MemoryReport | TrainingProfile, label: str) -> None:
    tree = tree_of(reporters.render("txt", record))
    assert label in tree
    everything = tree_of(reporters.render("txt", record, View(folded=False)))
    assert "under 0.1 %" not in everything
    assert all(f"({row.path.rpartition('.')[2]})" in everything for row in record.rows[1:])
    for format in ("json", "csv"):
        text = reporters.render(format, record)
        assert all(row.path in text for row in record.rows)


def test_layers_of_a_training_step_that_take_next_to_nothing_share_a_row() -> None:
    record = RECORDS["training profile"]()
    assert isinstance(record, TrainingProfile)
    nothing = dict.fromkeys(("forward", "backward", "forward_self", "backward_self"), summary(1e-3))
    rows = [
        row.model_copy(update=nothing) if row.path in ("bn1", "relu") else row
        for row in record.rows
    ]
    record = record.model_copy(update={"rows": tuple(rows)})
    check(record, f"  {FOLDED}")
    line = next(line for line in reporters.render("txt", record).splitlines() if FOLDED in line)
    assert line.split()[-2:] == ["0.001998", "0.001998"]


def test_a_row_of_which_something_is_said_stays() -> None:
    record = memory()
    rows = [
        row.model_copy(update={"allocated": 0, "note": f"remark {at}"})
        for at, row in enumerate(record.rows)
    ]
    record = record.model_copy(update={"rows": tuple(rows)})
    assert "under 0.1 %" not in reporters.render("txt", record)
