"""The page that shows records, as one file in a real browser: from disk, without a network."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from layerbench import reporters, units
from layerbench.analysis.comparison import compare
from layerbench.analysis.energy import by_layer
from layerbench.records.bundle import Bundle
from layerbench.reporters.html import assets
from layerbench.reporters.html.document import bundled, of
from tests.profilers.test_energy import with_energy
from tests.support.page_rows import CELLS, cell, names, row
from tests.support.sample_comparisons import measured, one_slower
from tests.support.sample_profiles import counted, deep, layered, summary

MOST_ROWS = 200


# --- from disk -----------------------------------------------------------------------------


def test_it_opens_from_disk_expands_and_sorts(opened):
    page = opened(layered())
    assert page.locator(".title").inner_text() == "tiny"
    assert names(page)[0] == "TinyNet"
    assert cell(page, "TinyNet", "Time") == "9.99 ms"
    # At the blocks: what is in them is closed.
    blocks = ["TinyNet", "features", "0", "1", "2", "mean()", "classifier"]
    assert names(page) == blocks
    row(page, "features").locator(".twisty").click()
    assert names(page) == ["TinyNet", "features", "mean()", "classifier"]
    page.keyboard.press("b")
    assert names(page) == blocks
    page.get_by_role("columnheader", name="Time", exact=True).get_by_role("button").click()
    header = page.get_by_role("columnheader", name="Time", exact=True)
    assert header.get_attribute("aria-sort") == "descending"


def test_the_first_screen_is_read_without_scripts(browser, tmp_path):
    record = counted()
    path = tmp_path / "report.html"
    path.write_text(reporters.render("html", record), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    first = page.locator(".first")
    told = first.inner_text()
    made = reporters.render("screen", record)
    assert page.locator("h1").inner_text() == "tiny"
    for line in ("Advice", *re.findall(r"^.* a forward .*$", made, flags=re.MULTILINE)):
        assert line in told
    assert first.get_by_role("table").get_by_role("caption").inner_text() in made
    heads = first.get_by_role("columnheader").all_inner_texts()
    assert heads[:3] == ["path", "type", "input→output"]
    assert first.get_by_role("rowheader").all_inner_texts()[:2] == [
        "features.2.conv",
        "features.1.conv",
    ]
    assert not page.locator(".panes").is_visible()
    context.close()


def test_a_slow_layer_is_shown_in_the_tree(opened):
    page = opened(layered())
    assert page.locator(".first p").first.inner_text() in reporters.render("screen", layered())
    page.locator(".first").get_by_role("button", name="features.1.conv").click()
    assert page.locator("#panel h2").inner_text() == "features.1.conv"
    assert row(page, "conv").get_attribute("aria-selected") == "true"


def test_figures_of_a_profile_alone(opened):
    """FLOPs, kernels and the roofline, without a record of the structure."""
    page = opened(counted())
    assert cell(page, "0", "FLOPs") == "1.00 M"
    assert cell(page, "0", "Kernel") == "3x3"
    assert cell(page, "0", "Groups") == "2"
    assert cell(page, "0", "Self parameters") == "224"
    row(page, "0").click()
    assert "3x3" in page.locator("#panel").inner_text()
    assert page.get_by_role("tab", name="Roofline").count() == 1


def test_a_report_is_small():
    document = of(bundled(layered()))
    page = assets.report(document)
    assert len(page.encode()) - len(document.model_dump_json().encode()) < 300 * 1024


HOSTILE = "</script><img src=x onerror=\"document['title']='broken'\">"


def test_a_name_that_would_be_markup_is_text(opened):
    record = layered()
    rows = list(record.layers)
    rows[1] = rows[1].model_copy(update={"path": HOSTILE, "type": HOSTILE, "note": HOSTILE})
    rows[2] = rows[2].model_copy(update={"path": "<!--<script>", "depth": 1})
    workload = record.workload.model_copy(update={"model": HOSTILE})
    page = opened(record.model_copy(update={"layers": tuple(rows[:3]), "workload": workload}))
    assert HOSTILE in page.locator(".title").inner_text()
    assert HOSTILE in names(page)
    page.locator(CELLS).nth(1).click()
    assert page.locator("#panel h2").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.title() != "broken"


@pytest.mark.slow
def test_ten_thousand_rows_are_never_all_in_the_page(opened):
    page = opened(deep())
    page.get_by_label("Open to depth").select_option("all")
    grid = page.locator("[role=treegrid]")
    assert int(grid.get_attribute("aria-rowcount")) > 10_000
    counts = [page.locator("[role=row]").count()]
    for _ in range(5):
        page.locator(".table").evaluate("box => { box.scrollTop += 40_000 }")
        page.wait_for_timeout(50)
        counts.append(page.locator("[role=row]").count())
    assert max(counts) <= MOST_ROWS
    assert min(counts) > 10
    # The last row is there, at the end.
    page.locator(CELLS).first.focus()
    page.keyboard.press("End")
    assert names(page)[-1] == "conv9"


# --- the table -----------------------------------------------------------------------------


def test_keys_of_a_treegrid(opened):
    page = opened(layered())

    def focused() -> str:
        return page.evaluate(
            "document.activeElement.querySelector('span:nth-child(2)').textContent"
        )

    page.keyboard.press("1")
    row(page, "TinyNet").focus()
    page.keyboard.press("ArrowDown")
    assert focused() == "features"
    assert page.locator("#panel h2").inner_text() == "features"
    assert page.locator(":focus").get_attribute("aria-expanded") == "false"
    page.keyboard.press("ArrowRight")
    assert page.locator(":focus").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowRight")
    assert page.locator(":focus").get_attribute("aria-level") == "3"
    page.keyboard.press("ArrowLeft")
    assert focused() == "features"
    page.keyboard.press("ArrowLeft")
    assert page.locator(":focus").get_attribute("aria-expanded") == "false"
    page.keyboard.press("End")
    last = focused()
    page.keyboard.press("Home")
    assert focused() == "TinyNet"
    assert last == names(page)[-1]
    page.keyboard.press("*")
    page.keyboard.press("?")
    assert page.locator("dialog.help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog.help").is_visible()


def test_depths_by_key(opened):
    page = opened(deep(3, 2, 2))
    count = page.locator("[role=treegrid]")
    before = int(count.get_attribute("aria-rowcount"))
    page.keyboard.press("e")
    assert int(count.get_attribute("aria-rowcount")) == 1 + 1 + 3 + 3 * 2 + 3 * 2 * 2
    page.keyboard.press("2")
    assert int(count.get_attribute("aria-rowcount")) == 1 + 1 + 3 + 3 * 2
    page.keyboard.press("c")
    assert int(count.get_attribute("aria-rowcount")) == before == 1 + 1 + 3
    assert page.get_by_label("Open to depth").input_value() == "1"


def test_search_shows_what_matches_and_what_is_above(opened):
    page = opened(deep(4, 3, 3))
    page.keyboard.press("/")
    page.keyboard.type("s2.b1.conv2")
    assert names(page) == ["Large", "s2", "b1", "conv2"]
    assert page.locator(".found").inner_text() == "1 of 53 rows match"
    page.keyboard.press("Escape")
    assert len(names(page)) == 5


def test_repeats_are_one_row_with_least_median_and_most(opened):
    record = deep(1, 3, 1)
    rows = [
        one.model_copy(update={"inclusive": summary(float(one.path[-1]) + 1)})
        if one.type == "Block"
        else one
        for one in record.layers
    ]
    page = opened(record.model_copy(update={"layers": tuple(rows)}))
    page.keyboard.press("e")
    assert names(page) == ["Large", "s0", "Block ×3", "b0", "conv0", "b1", "conv0", "b2", "conv0"]
    row(page, "Block ×3").click()
    told = page.locator("#panel tbody tr", has_text="Time").first.locator("td").all_inner_texts()
    assert told == ["5.994 ms", "999.0 µs", "1.998 ms", "2.997 ms"]
    page.keyboard.press("f")
    assert "Block ×3" not in names(page)


def test_a_flat_list_by_self_time(opened):
    page = opened(layered())
    page.get_by_label("flat list").check()
    found = of(bundled(layered()))
    (time,) = [metric for metric in found.metrics if metric.key == "time"]
    timed = [index for index, value in enumerate(time.own) if value is not None]
    longest = max(timed, key=lambda index: time.own[index])
    assert names(page)[0] == (found.rows.path[longest] or found.rows.type[longest])
    assert len(names(page)) == len(found.rows.path)


def test_rows_that_did_not_run_have_no_figures(opened):
    record = layered()
    page = opened(record)
    page.keyboard.press("e")
    untimed = next(one for one in record.layers if one.inclusive is None)
    assert cell(page, untimed.path.rpartition(".")[2], "Time") == "-"


# --- beside it -----------------------------------------------------------------------------


def test_the_icicle_and_the_table_are_linked(opened):
    page = opened(layered())
    canvas = page.locator(".icicle canvas")
    box = canvas.bounding_box()
    # The second level's first block is what runs first.
    page.mouse.click(box["x"] + 20, box["y"] + 36)
    assert page.locator("#panel h2").inner_text() == "features"
    assert row(page, "features").get_attribute("aria-selected") == "true"
    page.mouse.dblclick(box["x"] + 20, box["y"] + 36)
    assert page.locator(".crumbs li:not(.apart)").all_inner_texts() == ["TinyNet", "features"]
    assert canvas.get_attribute("aria-label") == "Icicle of features Sequential: width by Time"
    page.keyboard.press("0")
    assert page.locator(".crumbs li:not(.apart)").all_inner_texts() == ["TinyNet"]
    # The table behind the canvas.
    parts = page.locator(".behind th").all_inner_texts()
    assert parts[0] == "features Sequential"


def test_details_have_the_distribution_and_what_the_energy_lies_between(opened):
    page = opened(with_energy())
    row(page, "features").click()
    told = page.locator("#panel").inner_text()
    assert "Sequential (module)" in told
    assert "[2, 3, 32, 32]" in told
    times = next(one for one in layered().layers if one.path == "features").inclusive
    half = (times.ci_high - times.ci_low) / 2
    assert units.seconds(times.p95, half) in told
    layer = next(one for one in by_layer(with_energy()) if one.row.path == "features")
    spread = (layer.high - layer.low) / 2
    joules = (units.joules(one, spread) for one in (layer.joules, layer.low, layer.high))
    assert "{} ({} to {})".format(*joules) in told
    assert page.locator("#panel svg.strip").count() == 2
    assert "noisy" in told


def test_a_comparison_has_verdicts_and_what_only_one_side_has(opened):
    page = opened(one_slower())
    page.keyboard.press("e")
    assert "The whole model is SLOWER" in page.locator(".first").inner_text()
    assert cell(page, "1", "Verdict") == "SLOWER"
    assert float(cell(page, "1", "Ratio")) == pytest.approx(1.3, abs=0.02)
    assert cell(page, "classifier", "Verdict") == "FASTER"
    missing = page.locator(f"{CELLS}.missing")
    assert missing.count() == len(one_slower().missing)
    row(page, "1").click()
    assert "95 % interval" in page.locator("#panel").inner_text()
    page.get_by_role("tab", name="Source").click()
    assert "2.9.0" in page.locator("#panel").inner_text()


def test_two_profiles_have_both_columns_and_distributions(opened):
    before, after = measured(), measured({"features.1": 1.3}, whole=1.1)
    bundle = Bundle(profile=after, baseline=before, comparison=compare(before, after))
    page = opened(bundle)
    page.keyboard.press("e")
    assert cell(page, "1", "Verdict") == "SLOWER"
    row(page, "1").click()
    assert page.locator("#panel svg.strip").count() == 2


def test_the_address_brings_the_same_view_back(opened):
    page = opened(deep(4, 3, 3))
    page.get_by_label("fold repeats").uncheck()
    page.get_by_label("Open to depth").select_option("2")
    row(page, "s1").locator(".twisty").click()
    row(page, "s2").click()
    page.get_by_label("Heat by").select_option("parameters")
    page.get_by_role("columnheader", name="Parameters").get_by_role("button").click()
    page.get_by_role("tab", name="Source").click()
    page.wait_for_url(re.compile("tab=source"))
    shown, address = names(page), page.url
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.url == address
    assert names(page) == shown
    assert page.get_by_label("Heat by").input_value() == "parameters"
    assert page.get_by_role("tab", name="Source").get_attribute("aria-selected") == "true"
    assert row(page, "s2").get_attribute("aria-selected") == "true"


def test_another_address_in_the_same_page(opened):
    page = opened(deep(4, 3, 3))
    page.evaluate("location.hash = '#depth=2&row=s1.b1'")
    page.locator("#panel h2", has_text="s1.b1").wait_for()
    assert "b0" in names(page)


def test_a_closed_root_stays_closed(opened):
    page = opened(layered())
    row(page, "TinyNet").locator(".twisty").click()
    assert names(page) == ["TinyNet"]
    page.wait_for_url(re.compile("flip="))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert names(page) == ["TinyNet"]


def test_the_focus_stays_when_columns_rows_and_order_change(opened):
    page = opened(deep(30, 3, 3))
    row(page, "s2").focus()

    def focused() -> str:
        return page.evaluate(
            "document.activeElement.querySelector('span:nth-child(2)')?.textContent ?? null"
        )

    page.keyboard.press("3")
    assert focused() == "s2"
    page.locator(".table").evaluate("box => { box.scrollTop = 3000 }")
    page.wait_for_timeout(100)
    assert focused() == "s2"
    # In the order of the rows, also the one that is out of sight.
    places = page.locator(CELLS).evaluate_all(
        "rows => rows.map((one) => Number(one.getAttribute('aria-rowindex')))"
    )
    assert places == sorted(places)
    page.keyboard.press("1")
    assert focused() == "s2"


def test_keys_in_a_search_and_in_the_sheet_of_keys(opened):
    page = opened(deep(4, 3, 3))
    page.keyboard.press("/")
    page.keyboard.type("s2.b1")
    row(page, "b1").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel h2").inner_text() == "s2"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.keyboard.press("e")
    assert "conv0" not in names(page)
    page.get_by_label("single keys act").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    assert "conv0" not in names(page)


def test_a_zoom_to_what_is_nothing_by_another_figure_ends(opened):
    page = opened(layered())
    page.keyboard.press("e")
    row(page, "features").click()
    page.get_by_role("button", name="Zoom to the row").click()
    assert "features" in page.locator(".crumbs").inner_text()
    page.get_by_label("Icicle by").select_option("parameters")
    assert page.locator(".icicle canvas").get_attribute("aria-label").endswith("by Parameters")


@pytest.mark.parametrize("format", ["CSV", "JSON", "SVG", "PNG"])
def test_exports(opened, format):
    page = opened(layered())
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as told:
        page.get_by_role("button", name=format).click()
    content = told.value.path().read_bytes()
    document = of(bundled(layered()))
    if format == "CSV":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        assert [one["path"] for one in rows] == list(document.rows.path)
        assert float(rows[1]["time (seconds)"]) == document.metrics[0].values[1]
    elif format == "JSON":
        assert json.loads(content) == json.loads(document.model_dump_json())
    elif format == "SVG":
        assert content.startswith(b"<svg xmlns=")
        assert b"features" in content
    else:
        assert content.startswith(b"\x89PNG")
