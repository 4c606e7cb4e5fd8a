"""What reports say of an accelerator: what it needs, what launching costs, its kernels."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import pairwise

import jsonschema
import pytest

from layerbench import reporters
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Profile
from layerbench.records.view import View
from layerbench.reporters.documents import rows
from layerbench.reporters.html.document import bundled, of
from layerbench.reporters.latex_table import MOST_ROWS
from tests.support.paths import ROOT
from tests.support.sample_devices import ADD, by_events, compute_bound, launch_bound
from tests.support.sample_profiles import layered, on_gpu, summary, whole

KERNELS = View(kernels=True)


def text_of(record: Profile, view: View = KERNELS) -> str:
    """On one line, without the places where lines end."""
    return " ".join(reporters.render("txt", record, view).split())


@pytest.mark.parametrize("format", ["txt", "md", "csv", "latex", "screen"])
def test_golden_with_kernels(format: str, golden) -> None:  # type: ignore[no-untyped-def]
    text = reporters.render(format, launch_bound(), KERNELS)
    assert reporters.render(format, launch_bound()) != text
    golden(text, reporters.suffix(format))


# --- the first screen ----------------------------------------------------------------------


def test_the_answer_says_what_the_device_needs_and_what_launching_costs() -> None:
    screen = reporters.render("screen", launch_bound())
    assert (
        "The device needs 1.099 ms of it, launching costs 1.648 ms (60 %): launch-bound.\n"
        in screen
    )
    screen = reporters.render("screen", compute_bound())
    assert "The device needs 2.697 ms of it, launching costs 50 µs (2 %).\n" in screen
    assert "launch-bound" not in screen
    assert "The device" not in reporters.render("screen", layered())


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_has_both_clocks_kernels_and_the_bound(width: int) -> None:
    view = View(width=width)
    lines = reporters.render("screen", launch_bound(), view).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    header = next(line for line in lines if line.startswith("path"))
    for name in ("device ms", "host ms", "kernels", "bound by"):
        assert name in header
    first = next(line for line in lines if "tures.2.conv " in line and "Slowest" not in line)
    assert re.search(r" 0\.3896 .* 0\.2997 +1 .*memory$", first)
    assert re.search(r"^classifier .* launch$", "\n".join(lines), re.MULTILINE)


def test_layers_that_wait_are_summed_apart() -> None:
    text = text_of(launch_bound())
    # 0.28 and 0.39 of 1 ms are bound by a roof; the containers and what they launch wait, too.
    assert "Bound by memory 39 %, launch 33 %, compute 28 %" in text
    assert "Advice The device waits for the host to launch its work" in text


def test_what_takes_no_time_is_bound_by_nothing() -> None:
    record = launch_bound()
    no_time = dict.fromkeys(("inclusive", "self_", "host_inclusive", "host_self"), summary(0.0))
    rows = [
        row.model_copy(update=no_time) if row.path == "features" else row for row in record.layers
    ]
    text = text_of(record.model_copy(update={"layers": tuple(rows)}))
    assert re.search(r"Bound by [^A]*%", text)
    assert "not known" not in text


def test_kernels_take_the_place_of_the_slowest_layers() -> None:
    screen = " ".join(reporters.render("screen", launch_bound(), KERNELS).split())
    assert "Longest kernel: sm80_xmma_fprop" in screen
    assert "of features.2.conv, 39.0 % of the device's time" in screen
    assert "Slowest" not in screen
    linear = reporters.render("screen", launch_bound(), View(kernels=True, type="Linear"))
    assert "Longest kernel: gemv2T_kernel_val<int, int, floa… of classifier" in linear


# --- the report ----------------------------------------------------------------------------


def test_the_device_has_a_section_of_its_own() -> None:
    text = text_of(launch_bound())
    for said in (
        "whole behind a blocked queue 1.099 0.2 % 40.0 % stable",
        "span of the device rounds 2.997 0.2 % 109.1 % stable",
        "idle in the span 1.998 0.2 % 72.7 % stable",
        "Device times of rows are their kernels'",
        "Of 8 modules, 6 are launch-bound.",
        "w launch-bound",
    ):
        assert said in text
    assert "30 forwards for functions" not in text
    for record in (layered(), on_gpu()):
        assert "\nDevice\n" not in reporters.render("txt", record)


def test_rounds_that_disagree_are_said_to_and_of_which_rows() -> None:
    text = text_of(launch_bound())
    for said in (
        "The self times of all rows and the idle time add up to 1.000000 of the device rounds' "
        "span.",
        "the rows' device times add up to 9.09 % less than what the device needs. More than 2 %: "
        "as much for each kernel, it is more than 2 % of features.0, features.1.conv, "
        "features.2.conv, classifier.",
        "The whole in host rounds is 3.00 % more than it is untouched. More than 2 %",
        "The span of the device rounds is 9.09 % more than the untouched whole. More than 2 %: the "
        "profiler slows the host, which lengthens the idle time and no row.",
        "host rounds / untouched is 1.0300: the instruments cost 3.00 %",
    ):
        assert said in text


def test_blocks_that_did_not_run_leave_the_figures_their_columns() -> None:
    record = launch_bound(device=0.001, host=0.001)
    rows = list(record.layers)
    at = next(n for n, row in enumerate(rows) if row.block)
    name = "_transformer_encoder_layer_fwd"
    nothing = dict.fromkeys(("inclusive", "self_", "host_inclusive", "host_self"))
    rows[at] = rows[at].model_copy(update={**nothing, "calls": 0, "type": name, "path": name * 2})
    text = reporters.render("txt", record.model_copy(update={"layers": tuple(rows)}))
    header = text.split("\nBlocks\n")[1].splitlines()[0]
    assert " ".join(header.split()).endswith("mean ms median ms host ms kernels share verdict")


def test_a_span_that_is_shorter_than_the_whole_has_another_reason() -> None:
    record = launch_bound()
    assert record.device_rounds
    rounds = record.device_rounds.model_copy(update={"span": summary(2.0), "idle": summary(1.0)})
    text = text_of(record.model_copy(update={"device_rounds": rounds}))
    assert "% less than the untouched whole. More than 2 %: the whole begins with an event" in text
    assert "profiler slows the host" not in text


def test_times_between_events_say_so_and_what_they_cannot_tell() -> None:
    text = text_of(by_events())
    assert "nobody saw the kernels. They tell 100.0 µs from nothing" in text
    assert re.search(r"Linear \(classifier\) .*? below the clock's resolution", text)
    assert "Kernels" not in text
    assert "idle" not in text


def test_a_record_without_layers_has_the_device_but_no_rows() -> None:
    record = launch_bound().without_layers()
    assert record.kernels == ()
    text = text_of(record)
    assert "The device needs 1.099 ms of it" in text
    assert "span of the device rounds" in text
    # Of a compiled model nobody sees more than its kernels.
    compiled = launch_bound().model_copy(update={"layers": ()})
    assert "Longest kernel" in reporters.render("screen", compiled, KERNELS)
    assert compiled.without_layers().kernels


def test_reports_of_a_cpu_are_as_they_were() -> None:
    for format in ("txt", "md", "csv", "latex", "screen", "json", "html"):
        for record in (layered(), whole()):
            assert reporters.render(format, record, KERNELS) == reporters.render(format, record)
    told = of(bundled(layered())).model_dump()
    assert "kernels" not in told
    assert "bound" not in told["rows"]


# --- rows ----------------------------------------------------------------------------------


def test_csv_has_names_whole_and_the_kernels_behind_the_layers() -> None:
    record = launch_bound()
    plain = list(csv.DictReader(io.StringIO(reporters.render("csv", record))))
    listed = list(csv.DictReader(io.StringIO(reporters.render("csv", record, KERNELS))))
    assert [row["kind"] for row in listed[len(plain) :]] == ["kernel"] * len(record.kernels)
    assert [row["path"] for row in listed[: len(plain)]] == [row["path"] for row in plain]
    add = next(row for row in listed if row["function"] == "add")
    assert (add["path"], add["kernel"], add["calls"]) == ("features.1", ADD, "1")
    assert float(add["inclusive_mean_s"]) == pytest.approx(0.015e-3)
    assert float(add["device_share"]) == pytest.approx(0.015)
    first = plain[0]
    assert float(first["launching_s"]) == pytest.approx(0.999 * 1.65e-3)
    assert (first["device_times"], first["launch_bound"]) == ("kernels", "True")
    conv = next(row for row in plain if row["path"] == "features.1.conv")
    assert (conv["kernels"], conv["launch_bound"]) == ("2", "False")


def test_a_bundles_rows_have_the_kernels_too() -> None:
    bundle = Bundle(profile=launch_bound())
    assert sum(row.get("kind") == "kernel" for row in rows(bundle, KERNELS)[1]) == 10
    assert not any(row.get("kind") == "kernel" for row in rows(bundle)[1])
    text = reporters.render("txt", bundle, KERNELS)
    assert "Longest kernel" in text
    assert re.search(r"features\.1\.conv .* 2\b", text)


def test_latex_lists_them_in_a_table_of_their_own() -> None:
    text = reporters.render("latex", launch_bound(), KERNELS)
    assert text.count(r"\begin{table}") == 2
    assert r"\label{tab:tiny-2x3x32x32-kernels}" in text
    many = launch_bound().kernels * MOST_ROWS
    record = launch_bound().model_copy(update={"kernels": many})
    assert r"\begin{longtable}" in reporters.render("latex", record, KERNELS)


def test_a_trace_has_kernels_within_their_rows() -> None:
    trace = json.loads(reporters.render("trace", launch_bound()))
    schema = (ROOT / "tests" / "data" / "trace-event.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(trace, json.loads(schema))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    rows_of = {event["args"]["path"]: event for event in spans if event["cat"] != "kernel"}
    kernels = [event for event in spans if event["cat"] == "kernel"]
    assert len(kernels) == 10
    assert sum(event["dur"] for event in kernels) == pytest.approx(1000)
    for event in kernels:
        row = rows_of[event["args"]["path"]]
        assert row["ts"] <= event["ts"]
        assert event["ts"] + event["dur"] <= row["ts"] + row["dur"] + 1e-3
    kernels.sort(key=lambda event: event["ts"])
    for earlier, later in pairwise(kernels):
        assert earlier["ts"] + earlier["dur"] <= later["ts"] + 2e-3


def test_a_page_is_told_of_kernels_hosts_and_bounds() -> None:
    told = of(bundled(launch_bound()))
    assert told.kernels is not None
    assert len(told.kernels.names) == 8
    assert len(told.kernels.entries) == 10
    paths = told.rows.path
    owners = {(paths[row], told.kernels.labels[name][:6]) for row, name, *_ in told.kernels.entries}
    assert ("features.1.add()", "vector") in owners
    assert ("features", "Memset") in owners
    assert told.rows.bound[paths.index("classifier")] == "launch"
    by_key = {metric.key: metric for metric in told.metrics}
    assert by_key["kernels"].values[0] == 11
    assert by_key["host"].values[0] == pytest.approx(0.999 * 2.7e-3)
    assert any("More than 2 %" in note for note in told.notes)


def test_hostile_names_are_text() -> None:
    bad = "</script><img src=x onerror=alert(1)>|`=1+1\x1b[31m" * 100
    kernel = launch_bound().kernels[0].model_copy(update={"name": bad, "function": bad})
    record = launch_bound().model_copy(update={"kernels": (kernel,)})
    for format in ("txt", "md", "html", "latex", "screen", "csv"):
        text = reporters.render(format, record, KERNELS)
        assert "\x1b" not in text or format == "csv"
        assert "<img" not in text or format in ("txt", "screen", "csv")
    lines = reporters.render("txt", record, KERNELS).splitlines()
    assert max(len(line) for line in lines if not line.strip().startswith("Command")) <= 118


def test_a_kernel_of_a_module_that_has_no_row_is_the_models() -> None:
    kernel = launch_bound().kernels[0].model_copy(update={"module": "gone"})
    record = launch_bound().model_copy(update={"kernels": (kernel,), "layers": ()})
    told = of(bundled(record))
    assert told.kernels is not None
    assert told.kernels.entries[0][0] == 0


def test_no_time_is_no_share() -> None:
    record = launch_bound().model_copy(update={"whole": summary(0.0)})
    assert "launching costs 0 s (0 %)" in reporters.render("screen", record)
