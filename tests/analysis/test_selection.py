"""What of a view a record cannot show is said, with what it shows instead."""

from __future__ import annotations

import pytest

from layerbench.analysis.selection import not_shown
from layerbench.records.view import View
from tests.support.sample_bundles import memory, whole
from tests.support.sample_comparisons import one_slower
from tests.support.sample_devices import by_events, launch_bound
from tests.support.sample_profiles import counted, layered, on_gpu
from tests.support.sample_runs import sweep
from tests.support.sample_structures import structure


@pytest.mark.parametrize(
    ("record", "sort", "says"),
    [
        (structure(), "time", ["sorted by FLOPs: a structure record knows no time of its layers"]),
        (structure(), "params", []),
        (memory(), "flops", ["sorted by memory: a memory record knows no FLOPs of its layers"]),
        (layered(), "flops", ["sorted by own time: this record knows no FLOPs of its layers"]),
        (counted(), "flops", []),
        (whole(), "memory", []),
        (sweep(), "self", ["--sort has no effect: a sweep record has no rows of layers"]),
        (
            one_slower(),
            "params",
            [
                "sorted by the change of time: a comparison record knows no order by parameters",
            ],
        ),
    ],
)
def test_another_order_is_said(record, sort, says):
    assert not_shown(record, View(sort=sort)) == says


def test_what_nobody_asked_for_is_not_missed():
    assert not_shown(structure(), View(top=3)) == []


def test_a_type_is_nothing_that_a_record_without_layers_has():
    (line,) = not_shown(sweep(), View(type="Conv2d"))
    assert line == "--type has no effect: a sweep record has no layers"
    for record in (structure(), layered(), one_slower(), whole()):
        assert not_shown(record, View(type="Foo")) == []


def test_why_there_are_no_kernels_is_said_in_one_line():
    wanted = View(kernels=True)
    said = "--kernels has no effect: "
    cpu = f"{said}a CPU has kernels under --compile alone"
    assert not_shown(layered(), wanted) == not_shown(whole(), wanted) == [cpu]
    assert not_shown(launch_bound(), wanted) == []
    for record, why in (
        (on_gpu(), "measured without rounds that show kernels"),
        (by_events(), "between events, and the profiler saw no kernels"),
        (launch_bound().without_layers(), "in the record that has the layers"),
        (structure(), "a structure record has no kernels"),
    ):
        lines = not_shown(record, wanted)
        assert len(lines) == 1
        assert lines[0].startswith(said)
        assert why in lines[0]
    unseen = by_events().model_copy(update={"absent": {"kernels": "no permission"}})
    assert not_shown(unseen, wanted) == [f"{said}no permission"]
