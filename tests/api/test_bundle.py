"""Time, structure and memory measured in one go are what each is by itself."""

from __future__ import annotations

import csv
import io
import re

import pytest

import layerbench
from layerbench import reporters
from layerbench.api import bundle as api
from layerbench.api.verification import checked
from layerbench.errors import LayerbenchError
from layerbench.profilers.progress import Silent
from layerbench.records.view import View
from layerbench.reporters import documents
from layerbench.store import paths
from tests.models import small
from tests.support.paths import ROOT

INPUT = "2x3x16x16"


@pytest.fixture(scope="module")
def record() -> layerbench.Bundle:
    return layerbench.bundle(small().eval(), INPUT, warmup=0, iterations=3, ceilings=False)


def by_path(rows):
    return {row["path"]: row for row in rows if row["kind"] != "whole"}


def test_the_joined_columns_are_those_of_the_single_records(record):
    joined = by_path(documents.rows(record)[1])
    times = by_path(documents.rows(record.profile)[1])
    assert [*joined] == [*times]
    for path, row in joined.items():
        known = {name: cell for name, cell in times[path].items() if cell not in (None, "")}
        assert row | known == row
    for part in (layerbench.structure(small(), INPUT), layerbench.memory(small(), INPUT)):
        columns = {"parameters", "self_flops", "groups", "self_allocated", "self_at_peak", "kept"}
        for row in part.rows:
            for name in columns & set(type(row).model_fields):
                assert joined[row.path][name] == getattr(row, name), (row.path, name)
    assert sum(row["share"] for row in joined.values() if row["share"]) == pytest.approx(1)
    # Of a convolution of 3 x 3, 4 channels to 4, on two images of 16 x 16.
    conv = joined["blocks.0.conv"]
    assert conv["self_flops"] == 2 * 2 * 16 * 16 * 4 * 4 * 9
    assert (conv["own_parameters"], conv["kernel_size"], conv["groups"]) == (148, "3x3", 1)
    assert conv["self_allocated"] == 2 * 4 * 16 * 16 * 4


def test_one_table_says_what_the_three_know(record):
    text = reporters.render("txt", record)
    table = text.partition("\nLayers\n")[2].splitlines()
    shown = re.split(r"\s\s+", table[0].strip())
    # How many columns there is room for depends on the digits of the times.
    (said,) = re.findall(r"^Not shown, for want of room: (.*)\.$", text, re.MULTILINE)
    names = ["path", "type", "calls", "input→output", "ms", "±", "share", "FLOPs", "params"]
    names += ["allocated", "self at peak", "kernel", "groups"]
    assert sorted([*shown, *said.split(", ")]) == sorted(names)
    assert {"groups", "kernel"} <= {*said.split(", ")}
    (line,) = [line for line in table if line.startswith("blocks.1.project ")]
    assert "Conv2d" in line
    assert line.split()[-2:] == ["0.01", "0.01"]
    for title in ("Totals", "Peak", "Reconciliation", "Measured on"):
        assert f"\n{title}\n" in text
    assert "Layers (medians" not in text


def test_its_first_screen_is_the_times_with_the_peak(record):
    lines = reporters.render("screen", record).splitlines()
    alone = reporters.render("screen", record.profile).splitlines()
    peak = [line for line in lines if "of tensors alive, reached" in line]
    assert len(lines) <= 24
    assert peak == [
        "Peak 40.1 KiB of tensors alive, reached in the forward of Conv2d (blocks.1.project)"
    ]
    assert [line for line in lines[2:] if line not in peak] == alone[2:]


def test_the_layers_that_hold_most_of_the_peak_come_first(record):
    lines = reporters.render("screen", record, View(sort="memory", top=3)).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("Most memory: "))
    rows = [line.split() for line in lines[at + 3 : at + 6]]
    held = {row.path for row in record.memory.rows if row.self_at_peak == 8192}
    # The longer the times are, the less room a path has.
    assert all(any(path.endswith(row[0].lstrip("…")) for path in held) for row in rows)
    assert lines[at + 1].endswith("allocated  self at peak")


def test_it_is_read_back_and_holds(record, tmp_path):
    path = tmp_path / "record.json"
    spec = f"{ROOT}/tests/models.py:small"
    made = layerbench.bundle(spec, INPUT, warmup=0, iterations=1, ceilings=False)
    path.write_text(reporters.render("json", made))
    assert layerbench.read(path) == layerbench.read(path, layerbench.Bundle) == made
    path.with_suffix(".txt").write_text(reporters.render("txt", made))
    assert [one.complaint for one in checked([path], Silent())] == [None]
    path.with_suffix(".txt").unlink()
    content = path.read_text()
    assert '"self_at_peak": 8192' in content
    path.write_text(content.replace('"self_at_peak": 8192', '"self_at_peak": 8191'))
    (one,) = checked([path], Silent())
    assert '"path": "stem"' in one.complaint


def test_its_file_lies_beside_the_profiles(record):
    whole = paths.places(record.profile, "out").whole
    assert paths.place(record, "out") == whole.with_name(f"{whole.name}_joined")


def test_what_cannot_be_made_besides_the_times_is_absent_with_its_reason(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise LayerbenchError("it has no shapes")

    monkeypatch.setattr(api, "profile_structure", refuse)
    made = layerbench.bundle(small(), INPUT, warmup=0, iterations=1, ceilings=False)
    assert made.absent == {"structure": "it has no shapes"}
    assert made.profile
    assert made.memory
    text = reporters.render("txt", made)
    assert "structure: it has no shapes" in text
    rows = list(csv.DictReader(io.StringIO(reporters.render("csv", made))))
    conv = next(row for row in rows if row["path"] == "blocks.0.conv")
    assert (conv["self_flops"], conv["self_allocated"]) == ("147456", "8192")
