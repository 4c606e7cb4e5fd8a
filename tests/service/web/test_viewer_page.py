"""The live viewer: a real server and a real browser. What is measured waits for the test's word."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerbench import reporters
from layerbench.store import writing
from tests.reporters.html.test_page import CELLS, HOSTILE, cell, names, row
from tests.support import service_child
from tests.support.sample_comparisons import measured
from tests.support.sample_profiles import layered
from tests.support.service_process import server

KEY = "a key"
# The browser itself says so of every answer that is an error.
FAILED = "Failed to load resource"


class Script:
    """What the measurement says, once it runs."""

    def __init__(self, pipe: Path) -> None:
        self._pipe = pipe

    @contextmanager
    def running(self) -> Iterator[Script]:
        """Waits until the measurement does; it ends with the block."""
        with self._pipe.open("w", buffering=1) as self._file:
            yield self

    def say(self, kind: str, **event: object) -> None:
        self._file.write(json.dumps({"kind": kind, **event}) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records: two measurements of one work, another kind, and a broken file."""
    made = tmp_path_factory.mktemp("records")
    hostile = layered().model_copy(
        update={"workload": layered().workload.model_copy(update={"model": HOSTILE})}
    )
    records = {"after": measured({"features.1": 1.3}), "before": measured(), "hostile": hostile}
    for name, record in records.items():
        writing.write_text(made / f"{name}.json", reporters.render("json", record))
    (made / "broken.json").write_text('{"record": "profile"')
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory, folder):
    """``address, script`` of a server."""
    place = tmp_path_factory.mktemp("viewer")
    pipe = place / "script"
    os.mkfifo(pipe)
    variables = {
        service_child.SCRIPT: str(pipe),
        "LAYERBENCH_SERVE_RECORDS": json.dumps([str(folder)]),
    }
    with server(place, **variables) as (_, address):
        yield address, Script(pipe)


@pytest.fixture
def script(served):
    return served[1]


@pytest.fixture
def opened(page, served):
    """``opened("model=told")``: the page, at that."""

    def show(at: str = ""):
        page.goto(f"{served[0]}/#{at}")
        page.wait_for_selector("html[data-ready]")
        return page

    return show


@pytest.fixture
def told(opened):
    """A model whose measurement says what the test says."""
    page = opened()
    page.get_by_label("Model").fill("told")
    page.get_by_role("button", name="Show").click()
    page.wait_for_selector("html[data-shown]")
    return page


def measure(page) -> None:
    page.get_by_role("button", name="Measure").click()


# --- models --------------------------------------------------------------------------------


def test_a_model_is_there_as_soon_as_it_is_chosen(told):
    assert names(told) == ["TinyNet", "classifier"]
    assert cell(told, "classifier", "Parameters") == "10"
    assert "model=told" in told.url
    assert told.get_by_role("button", name="Measure").is_enabled()
    # The address is enough.
    told.reload()
    told.wait_for_selector("html[data-shown]")
    assert names(told) == ["TinyNet", "classifier"]


def test_all_known_names_are_offered(opened):
    page = opened()
    page.wait_for_function("() => document.querySelectorAll('#models option').length > 10")
    offered = page.locator("#models option").evaluate_all("all => all.map((one) => one.value)")
    assert {"vit", "deit", "swin", "resnet", "told"} <= set(offered)


def test_an_unknown_name_is_told_with_close_ones(opened):
    page = opened()
    page.watched.expected.append(FAILED)
    page.get_by_label("Model").fill("tolld")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("alert").filter(has_text="did you mean told").wait_for()


# --- measuring -----------------------------------------------------------------------------


def test_rows_fill_in_while_it_runs_and_the_running_one_is_marked(told, script):
    measure(told)
    with script.running():
        script.say("progress", phase="measuring", done=3, total=300)
        script.say("running", path="classifier")
        script.say("rows", rounds=3, final=False, rows=[["classifier", 0.4, 0.4]])
        told.locator(".row.running").wait_for()
        told.get_by_role("columnheader", name="Time", exact=True).wait_for()
        assert told.locator(".row.running").count() == 1
        assert cell(told, "classifier", "Time") == "400.0 ms"
        assert cell(told, "TinyNet", "Time") == "-"
        assert told.locator(".count").inner_text() == "3 of 300"
        assert told.locator(".status").inner_text() == "measuring"
        assert told.locator("progress").get_attribute("value") == "3"
        script.say("running", path=None)
        script.say("rows", rounds=9, final=False, rows=[["", 0.6, 0.2], ["classifier", 0.41, 0.41]])
        told.wait_for_function("() => !document.querySelector('.row.running')")
        told.get_by_text("410.0 ms").first.wait_for()
        assert cell(told, "TinyNet", "Time") == "600.0 ms"
    # The record, with what it alone has.
    told.wait_for_selector("html[data-job=done]")
    told.wait_for_function(
        "() => document.querySelector('.status').textContent.startsWith('measured')"
    )
    assert "features" in names(told)
    assert cell(told, "TinyNet", "Time") == "9.99 ms"
    assert told.get_by_role("button", name="Measure").is_visible()


def test_the_graph_fills_in_while_it_runs(told, script):
    told.get_by_role("tab", name="Graph").click()
    node = told.locator(".flow .node:has-text('classifier')")
    assert "Linear" in node.text_content()
    narrow = node.bounding_box()["width"]
    measure(told)
    with script.running():
        script.say("running", path="classifier")
        told.locator(".flow .node.running").wait_for()
        node.focus()
        script.say("rows", rounds=3, final=False, rows=[["classifier", 0.4, 0.4]])
        told.locator(".flow .node.running:has-text('400.0 ms')").wait_for()
        assert node.bounding_box()["width"] > narrow
        # Whoever is there stays there.
        assert node.evaluate("node => node === document.activeElement")
        script.say("running", path=None)
        told.wait_for_function("() => !document.querySelector('.flow .running')")
    told.wait_for_selector("html[data-job=done]")


def test_a_closed_row_is_marked_for_what_runs_in_it(told, script):
    told.get_by_label("Open to depth").select_option("1")
    row(told, "TinyNet").locator(".twisty").click()
    measure(told)
    with script.running():
        script.say("running", path="classifier")
        told.locator(".row.running").wait_for()
        assert names(told) == ["TinyNet"]
    told.wait_for_selector("html[data-job=done]")


def test_it_can_be_cancelled(told, script):
    measure(told)
    with script.running():
        script.say("progress", phase="measuring", done=1, total=300)
        told.get_by_text("1 of 300").wait_for()
        told.get_by_role("button", name="Cancel").click()
        told.wait_for_selector("html[data-job=cancelled]")
    assert told.locator(".status").inner_text() == "cancelled"
    # And asked for again.
    measure(told)
    with script.running():
        script.say("rows", rounds=1, final=False, rows=[["classifier", 0.25, 0.25]])
        told.get_by_text("250.0 ms").first.wait_for()
    told.wait_for_selector("html[data-job=done]")


def test_a_page_that_is_opened_again_follows_the_same_measurement(told, script):
    measure(told)
    with script.running():
        script.say("rows", rounds=2, final=False, rows=[["classifier", 0.125, 0.125]])
        told.get_by_text("125.0 ms").first.wait_for()
        told.reload()
        told.get_by_text("125.0 ms").first.wait_for()
    told.wait_for_selector("html[data-job=done]")
    assert "features" in names(told)


def test_another_model_ends_the_measurement_of_the_one_before(told, script):
    measure(told)
    with script.running():
        script.say("rows", rounds=2, final=False, rows=[["classifier", 0.125, 0.125]])
        told.get_by_text("125.0 ms").first.wait_for()
        # A name that there is not ends nothing.
        told.watched.expected.append(FAILED)
        told.get_by_label("Model").fill("tolld")
        told.get_by_role("button", name="Show").click()
        told.get_by_role("alert").filter(has_text="did you mean").wait_for()
        assert told.get_by_role("button", name="Cancel").is_visible()
        told.get_by_label("Model").fill("quick")
        told.get_by_role("button", name="Show").click()
        told.locator(".title", has_text="quick").wait_for()
        told.get_by_role("button", name="Measure").wait_for()
    assert "job=" not in told.url


def test_what_is_measured_is_what_the_form_says(told, script):
    told.get_by_label("Batch").fill("4")
    measure(told)
    with script.running():
        script.say("progress", phase="measuring", done=1, total=300)
        told.get_by_text("1 of 300").wait_for()
        assert "batch=4" in told.url
    told.wait_for_selector("html[data-job=done]")


def test_how_it_is_measured_is_chosen_and_where_it_is_stored_is_told(told, script, served):
    asked: dict[str, dict[str, object]] = {}

    def noted(request) -> None:
        if request.method == "POST":
            asked[request.url.partition("?")[0].rpartition("/")[2]] = request.post_data_json

    told.on("request", noted)
    told.get_by_text("Settings").click()
    told.get_by_label("Precision").select_option("amp-bf16")
    told.get_by_label("channels last").check()
    told.locator("[name=mode]").select_option("train")
    told.get_by_label("Device").select_option("cuda:0")
    told.get_by_label("Threads").fill("3")
    told.get_by_label("Warm-up").fill("5")
    told.get_by_label("Rounds").fill("7")
    measure(told)
    with script.running():
        script.say("progress", phase="measuring", done=1, total=7)
        told.get_by_text("1 of 7").wait_for()
    told.wait_for_selector("html[data-job=done]")
    runs = {"precision": "amp-bf16", "channels_last": True, "mode": "train"}
    model = {"architecture": "told", "batch_size": 1, "image_size": None}
    assert asked["structures"] == {**model, **runs}
    more = {"warmup": 5, "iterations": 7, "threads": 3, "device": "cuda:0"}
    assert asked["profiles"] == {**model, **runs, **more}
    assert told.locator(".chosen").inner_text() == (
        "(amp-bf16, channels last, train, cuda:0, 3 threads)"
    )
    told.locator(".status", has_text="measured").wait_for()
    status = told.locator(".status").inner_text()
    assert status.startswith("measured 2025-03-01")
    assert re.search(r", stored in \S*service\.db$", status)
    assert told.locator(".first").get_by_role("rowheader").count() > 3
    # What runs is in the address.
    told.reload()
    told.wait_for_selector("html[data-ready]")
    assert told.locator("[name=mode]").input_value() == "train"
    assert told.locator(".chosen").inner_text() == "(amp-bf16, channels last, train)"


def test_a_setting_that_cannot_be_meant_is_seen(told):
    told.get_by_text("Settings").click()
    told.get_by_label("Threads").fill("0")
    told.get_by_text("Settings").click()
    measure(told)
    assert told.get_by_label("Threads").is_visible()
    assert told.get_by_role("button", name="Measure").is_visible()


def test_a_measurement_that_is_cancelled_leaves_what_was_there(told, script):
    measure(told)
    with script.running():
        pass
    told.wait_for_selector("html[data-job=done]")
    told.get_by_text("9.99 ms").first.wait_for()
    measure(told)
    with script.running():
        script.say("rows", rounds=2, final=False, rows=[["", 0.125, 0.125]])
        told.get_by_text("125.0 ms").first.wait_for()
        told.get_by_role("button", name="Cancel").click()
        told.get_by_text("9.99 ms").first.wait_for()
    assert told.locator(".status").inner_text() == "cancelled"


def test_what_went_wrong_is_told(opened):
    page = opened("model=refuse")
    page.watched.expected.append(FAILED)
    page.get_by_role("alert").filter(has_text="takes no such image").wait_for()


# --- records -------------------------------------------------------------------------------


def test_records_are_listed_and_opened(opened):
    page = opened()
    table = page.locator(".records tbody tr")
    assert table.count() == 4
    assert "before.json" in page.locator(".records").inner_text()
    broken = table.filter(has_text="broken.json")
    assert broken.locator(".problem").inner_text() != ""
    page.get_by_role("button", name="hostile.json").click()
    page.wait_for_selector("html[data-shown]")
    assert page.locator(".title").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.locator(".status").inner_text().startswith("a stored record, measured 2025-03-01")
    page.reload()
    page.wait_for_selector("html[data-shown]")
    assert page.locator(".title").inner_text() == HOSTILE


@pytest.mark.parametrize("at", ["record=../../x", "record=a%2F..%2Fb&baseline=..", "record=%00"])
def test_what_is_no_records_number_is_not_asked_for(opened, at):
    page = opened()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate(f"location.hash = '{at}'")
    page.wait_for_function("() => document.querySelector('span.problem').textContent !== ''")
    assert page.locator("span.problem").inner_text() == "there is no such record"
    assert requests == []


def test_the_documentation_needs_no_network(page, served):
    page.goto(f"{served[0]}/docs")
    assert page.locator("h1").inner_text().startswith("layerbench ")
    assert page.locator("h2").count() >= 15
    assert "estimate-resource" in page.locator("h2").all_inner_texts()[0]
    # The style is there: its policy lets it in.
    assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == (
        "collapse"
    )


def test_two_records_side_by_side(opened):
    page = opened()
    for name in ("before.json", "after.json"):
        page.get_by_label(f"compare {name}").or_(
            page.locator(f"input[aria-label$='{name}']")
        ).first.check()
    page.get_by_role("button", name="Compare the two chosen").click()
    page.wait_for_selector("html[data-shown]")
    page.keyboard.press("e")
    assert cell(page, "1", "Verdict") == "SLOWER"
    assert row(page, "0").count() == 1
    # And back to the list.
    page.get_by_role("button", name="Records").click()
    assert page.locator(".records").is_visible()
    page.get_by_role("button", name="before.json").click()
    page.wait_for_function("() => !location.hash.includes('baseline')")
    assert page.locator(CELLS).count() > 5


# --- access --------------------------------------------------------------------------------


def test_a_key_is_asked_for_once(page, tmp_path):
    def answer(dialog) -> None:
        asked.append(dialog.message)
        dialog.accept(KEY)

    asked: list[str] = []
    page.on("dialog", answer)
    page.watched.expected.append(FAILED)
    with server(tmp_path, LAYERBENCH_SERVE_API_KEY=KEY) as (_, address):
        page.goto(f"{address}/#model=told")
        page.wait_for_selector("html[data-shown]")
        assert names(page) == ["TinyNet", "classifier"]
        page.wait_for_selector("html[data-ready]")
    assert set(asked) == {"This service wants an API key:"}


@pytest.mark.parametrize(("at", "width"), [("", 390), ("model=told", 1400)])
def test_everybody_can_use_it(opened, at, width):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(at)
    page.set_viewport_size({"width": width, "height": 800})
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
