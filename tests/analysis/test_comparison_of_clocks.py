"""Comparisons where a device's clock and the host's are two."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from layerbench import reporters
from layerbench.analysis.comparison import ALARM_RATE, compare
from layerbench.analysis.paired import of_rounds
from layerbench.records import samples
from layerbench.records.comparison import ONLY_WHOLE
from layerbench.records.samples import Run
from layerbench.records.timing import Profile, Summary
from tests.analysis.test_comparison import drifting_pair, verdicts
from tests.support.sample_comparisons import in_processes
from tests.support.sample_devices import by_events, launch_bound
from tests.support.sample_profiles import layered, on_gpu, summary


def in_five_processes(record: Profile, spread: float = 0.001) -> Profile:
    """The record as if five processes had been measured."""

    def apart(time: Summary | None) -> Summary | None:
        return time and in_processes(time.mean * 1e3, spread=spread)

    whole = in_processes(record.whole.mean * 1e3, spread=spread)
    rows = [
        row.model_copy(
            update={
                "inclusive": apart(row.inclusive),
                "host_inclusive": apart(row.host_inclusive),
            }
        )
        for row in record.layers
    ]
    update = {"whole": whole, "process_medians": whole.process_medians, "layers": tuple(rows)}
    return record.model_copy(update=update)


def test_device_times_are_compared_with_device_times_and_host_times_with_host_times():
    slower_host = in_five_processes(launch_bound(host=1.4))
    found = compare(in_five_processes(launch_bound()), slower_host)
    assert set(verdicts(found).values()) == {"SAME"}
    assert {row.verdict for row in found.host_rows} == {"SLOWER"}
    assert found.slower
    assert [row.path for row in found.host_rows][:2] == ["features", "features.0"]
    text = reporters.render("txt", found)
    assert "Host times: 7 SLOWER, 0 FASTER, 0 SAME, 0 UNCLEAR" in text
    assert "What changed on the host's clock" in text
    assert any(
        note.startswith("What launching costs: 1.651 ms in the baseline") for note in found.notes
    )
    *_, last = csv.DictReader(io.StringIO(reporters.render("csv", found)))
    assert (last["path"], last["clock"]) == ("classifier", "host")
    slower_device = in_five_processes(launch_bound(device=1.4))
    found = compare(in_five_processes(launch_bound()), slower_device)
    assert set(verdicts(found).values()) == {"SLOWER"}
    assert {row.verdict for row in found.host_rows} == {"SAME"}


def test_times_with_launching_in_them_are_told_apart_from_those_without():
    before = on_gpu()
    for sides in ((before, launch_bound()), (launch_bound(), before)):
        found = compare(*sides, same_model=True)
        assert found.rows == found.host_rows == ()
        (note,) = (note for note in found.notes if note.startswith(ONLY_WHOLE))
        assert "times with launching in them" in note
        assert "Only the whole model is compared" in reporters.render("screen", found)
    # On a CPU there is no launching, and a row's time is the work's.
    found = compare(layered(), launch_bound())
    assert len(found.rows) == 9
    assert (
        "Rows on the accelerator are times of the device alone, without launching." in found.notes
    )


def test_kernels_and_events_are_compared_with_a_note():
    found = compare(launch_bound(), by_events())
    assert found.rows
    assert any("are from kernels, the contender's from events" in note for note in found.notes)


def test_two_clocks_and_kernels_share_the_alarms_of_one(monkeypatch):
    shares = []

    def rejected(p_values, level):
        shares.extend([level] if p_values else [])
        return [False] * len(p_values)

    monkeypatch.setattr("layerbench.analysis.comparison.ratios.rejected", rejected)
    for sides in ((layered(), layered()), (launch_bound(), launch_bound())):
        shares.clear()
        compare(*sides)
        assert sum(shares) == pytest.approx(ALARM_RATE)
    # The whole; blocks and other rows on either clock; kernels.
    assert len(shares) == 6


def test_in_turn_host_times_are_compared_with_host_times():
    first, second = drifting_pair(3)
    apart = {"device_times": "kernels"}
    sides = []
    for run, factor in ((first, 1.0), (second, 1.5)):
        on_host = (run.arrays[samples.INCLUSIVE] * [factor, 1, factor]).astype(np.int64)
        arrays = {**run.arrays, samples.HOST + samples.INCLUSIVE: on_host}
        sides.append(Run(run.facts.model_copy(update=apart), arrays))
    evidence = of_rounds([tuple(sides)])
    assert evidence.host_rows["b"].ratio.ratio == pytest.approx(1.5, rel=0.01)
    assert evidence.host_rows["a"].ratio.ratio == pytest.approx(1, rel=0.01)
    assert evidence.rows["b"].ratio.ratio == pytest.approx(1, rel=0.01)
    assert of_rounds([(first, second)]).host_rows == {}


def test_rows_without_kernels_are_no_rows_without_a_ratio():
    record = launch_bound()
    spare = next(row for row in record.layers if row.path == "features.2.spare")
    ran = spare.model_copy(update={"calls": 1, "inclusive": summary(0), "self_": summary(0)})
    layers = tuple(ran if row is spare else row for row in record.layers)
    idle = record.model_copy(update={"layers": layers})
    assert not any("Without a ratio" in note for note in compare(idle, idle).notes)
