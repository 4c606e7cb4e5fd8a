"""What several records know of a layer, in one table; known figures, made by hand."""

from __future__ import annotations

import pytest

from layerbench import reporters
from layerbench.analysis.bundle import joined
from layerbench.records.bundle import Bundle
from layerbench.records.view import View
from tests.support.sample_bundles import MIB, memory, whole
from tests.support.sample_comparisons import one_slower
from tests.support.sample_structures import counted, structure


@pytest.mark.parametrize("format", ["txt", "md", "csv", "screen"])
def test_golden_bundle(format, golden):
    golden(reporters.render(format, whole()), reporters.suffix(format))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_by_memory_the_first_screen_keeps_its_size(width):
    lines = reporters.render("screen", whole(), View(sort="memory", width=width)).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    title = next(line for line in lines if line.startswith("Most memory"))
    assert title == "Most memory: features.2.conv (Conv2d), 1.00 MiB held at the peak"
    rows = [line.split()[0] for line in lines[lines.index(title) + 3 :][:4]]
    assert [row[-1] for row in rows] == ["v", "0", "v", "r"]  # then by what they allocate


def test_type_and_depth_choose_the_rows_of_the_table():
    text = reporters.render("txt", whole(), View(type="Conv2d", depth=2))
    table = text.partition("\nLayers\n")[2].partition("\nAll figures")[0].splitlines()[2:]
    assert [line.split()[0] for line in table] == ["features.0"]


@pytest.mark.parametrize("name", ["structure", "memory", "comparison"])
def test_without_a_profile_the_others_are_shown(name):
    parts = {"structure": structure(), "memory": memory(), "comparison": one_slower()}
    record = Bundle.model_validate({name: parts[name]})
    for format in ("txt", "md", "screen", "json", "csv", "html"):
        assert reporters.render(format, record)
    known = {"structure": "12,314", "memory": "4.00 MiB", "comparison": "SLOWER"}
    assert known[name] in reporters.render("txt", record)


def test_a_joined_record_stands_for_those_in_it():
    assert joined([("joined.json", whole())]) == whole()
    first = Bundle(profile=counted(), structure=structure())
    assert joined([("a.json", first), ("b.json", memory())]) == whole()
    both = joined([("a.json", counted()), ("b.json", whole())])
    assert both.comparison
    assert both.memory == memory()


def test_its_largest_layers_are_the_times_or_the_memory():
    record = whole()
    assert [spot.row.path for spot in record.top(1)] == ["features.2.conv"]
    (largest,) = record.top(1, sort="memory")
    assert (largest.row.path, largest.value) == ("features.2.conv", MIB)
    assert record.by_type()[0].name == "Conv2d"
    assert repr(record).startswith("Bundle: tiny on 2x3x32x32: time, structure and memory")
    assert ".top()" in repr(record)
