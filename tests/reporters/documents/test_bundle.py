"""What several records know of a layer, in one table; known figures, made by hand."""

from __future__ import annotations

import pytest

from layerbench import reporters
from layerbench.analysis.bundle import joined
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryReport
from layerbench.records.view import View
from tests.support.sample_comparisons import one_slower
from tests.support.sample_structures import counted, structure

MIB = 2**20
ALLOCATED = {"features.0": 3, "features.1.conv": 2, "features.2.conv": 2, "classifier": 1}


def memory() -> MemoryReport:
    """Of the tiny model: some layers allocate as many MiB as said, the convolutions last."""
    record = counted()
    none = {"tensors": 0, "elements": 0, "bytes": 0, "block_bytes": 0}
    rows = [
        {
            **{"path": row.path, "type": row.type, "depth": row.depth, "calls": row.calls},
            "parameters": 0,
            "self_allocated": ALLOCATED.get(row.path, 0) * MIB,
            "self_at_peak": MIB if row.path == "features.2.conv" else 0,
        }
        for row in record.layers
        if row.kind == "module"
    ]
    peak = {"bytes": 4 * MIB, "owner": "features.2.conv", "phase": "forward"}
    return MemoryReport.model_validate(
        {
            **{"workload": record.workload, "environment": record.environment},
            **{"training": False, "optimizer": None, "model_type": "TinyNet", "tensors": ()},
            **dict.fromkeys(("parameters", "buffers", "inputs", "total"), none),
            **{"resident_bytes": 3 * MIB, "outside_bytes": 0, "rows": rows, "timeline": ()},
            "peak": {**peak, "operator": "aten.convolution", "by_category": {"activations": MIB}},
        }
    )


def whole() -> Bundle:
    return Bundle(profile=counted(), structure=structure(), memory=memory())


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
