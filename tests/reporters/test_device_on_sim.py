"""Reports of a profile on the simulated accelerator, whose kernels take stated times."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping

import jsonschema
import pytest
import torch

import layerbench
from layerbench import reporters
from layerbench.analysis.launching import is_launch_bound, launching_s
from layerbench.plots.quantities import quantity
from layerbench.records.training_step import TrainingRow
from layerbench.records.view import View
from layerbench.reporters.html.document import bundled, of
from tests.models import Small
from tests.profilers.test_training_step_simulated import holding_for_long
from tests.simulated import Simulator
from tests.simulated.process import on_sim
from tests.support.paths import ROOT


def profile_of(sim: Simulator, **rules: int) -> layerbench.Profile:
    sim.rules(**rules)
    x = torch.rand(2, 3, 8, 8).to("sim:0")
    return layerbench.profile(
        Small().to("sim:0"), x, device="sim:0", warmup=1, iterations=6, ceilings=False
    )


@pytest.mark.slow
@on_sim
def test_a_net_whose_kernels_are_short_is_launch_bound_and_one_whose_are_long_is_not(
    sim: Simulator,
) -> None:
    short = profile_of(sim, kernel_ns=1_000, launch_ns=20_000)
    assert is_launch_bound(short)
    screen = reporters.render("screen", short)
    assert ": launch-bound." in screen
    assert "bound by launch" in screen
    text = reporters.render("txt", short, View(kernels=True))
    assert "add up to 1.000000 of the device rounds' span" in " ".join(text.split())
    assert "Kernels, the longest first" in text
    long = profile_of(sim, kernel_ns=1_000_000, launch_ns=1_000)
    assert not is_launch_bound(long)
    assert "launch-bound" not in reporters.render("screen", long)


@on_sim
def test_a_training_step_says_in_every_format_what_launching_costs(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer takes the host far longer than its kernels of 1 µs take the device."""
    holding_for_long(monkeypatch)
    sim.rules(kernel_ns=1_000, launch_ns=20_000)
    x = torch.rand(2, 3, 8, 8).to("sim:0")
    record = layerbench.profile_training(Small().to("sim:0"), x, threads=1, warmup=1, iterations=3)
    rows = {row.path: row for row in record.rows}
    assert is_launch_bound(record)
    _page_of_a_step(record, rows)
    listed = list(csv.DictReader(io.StringIO(reporters.render("csv", record, View(kernels=True)))))
    step, *others = listed
    assert float(step["launching_s"]) == pytest.approx(launching_s(record))
    assert (step["launch_bound"], step["device_times"]) == ("True", "kernels")
    head = next(row for row in others if row["path"] == "head")
    assert (head["kernels"], head["launch_bound"]) == ("4", "True")
    backward = next(row for row in others if row["path"] == "backward")
    assert (backward["kernels"], backward["launch_bound"]) == ("16", "True")
    kernels = [row for row in others if row["kind"] == "kernel"]
    assert len(kernels) == len(record.kernels)
    assert {row["phase"] for row in kernels} == {
        "copy", "forward", "loss", "backward", "optimizer"
    }  # fmt: skip
    _trace_of_a_step(record)
    latex = reporters.render("latex", record)
    assert re.search(r"Linear & head & .* & 4 & yes", latex)
    drawn = {cell.path: cell for cell in quantity(record, "self").cells}
    assert drawn["head"].waits
    own = (rows["head"].host_forward_self, rows["head"].host_backward_self)
    assert drawn["head"].host == pytest.approx(sum(time.mean for time in own))
    assert "launch-bound" in quantity(record, "time").note


def _trace_of_a_step(record: layerbench.TrainingProfile) -> None:
    """Phases one after the other, the modules and their kernels within them."""
    trace = json.loads(reporters.render("trace", record))
    schema = (ROOT / "tests" / "data" / "trace-event.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(trace, json.loads(schema))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    phases = [event for event in spans if event["cat"] == "phase"]
    assert [phase["dur"] for phase in phases] == [0, 1, 11, 3, 16, 12]  # µs: a kernel takes one
    starts = {event["name"]: event["ts"] for event in spans if event["cat"] == "module"}
    ends = phases[4]["ts"] + phases[4]["dur"]
    # Of the same modules the backward's stand last; there the first layer is the last one.
    assert phases[4]["ts"] <= starts["Linear head"] < starts["Conv2d stem"] < ends
    kernels = [event for event in spans if event["cat"] == "kernel"]
    assert sum(event["dur"] for event in kernels) == pytest.approx(43)
    head = [event for event in kernels if event["args"]["path"] == "head"]
    assert [event["name"] for event in head] == ["addmm", "mm", "sum"]


def _page_of_a_step(record: layerbench.TrainingProfile, rows: Mapping[str, TrainingRow]) -> None:
    """Host times, kernels and what is launch-bound, row by row, and the kernels of a row."""
    page = of(bundled(record))
    metrics = {metric.key: metric for metric in page.metrics}
    at = page.rows.path.index("head")
    both = (rows["head"].host_forward, rows["head"].host_backward)
    assert metrics["step_host"].values[at] == pytest.approx(sum(time.median for time in both))
    assert metrics["step_kernels"].values[at] == 4
    assert page.rows.bound[at] == "launch"
    ran = sorted((entry[2], entry[3]) for entry in page.kernels.entries if entry[0] == at)
    back = "backward: AddmmBackward0"
    assert ran == [(back, 1), (back, 2), ("forward: linear", 1)]
    told = dict(page.source)
    assert told["Backward"].endswith("16 kernels, launch-bound")
    assert "The step behind a blocked queue" in told
