"""The graph of an opened module, in a real browser."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from layerbench.records.bundle import Bundle
from tests.support.page_rows import cell, names, row
from tests.support.sample_profiles import layered
from tests.support.sample_structures import INPUT, OUTPUT, graph, graphed, long_graph, structure

MOST_DRAWN = 200
AT = "#tab=graph"


def drawn(page) -> list[str]:
    """First lines of the nodes, in the order of execution."""
    return page.locator(".flow .node text.name").all_text_contents()


def focused(page) -> str:
    return page.evaluate("document.activeElement.querySelector('text')?.textContent ?? ''")


def node(page, name: str):
    return page.locator(f".flow .node:has(text.name:text-is('{name}'))").first


@pytest.fixture
def residual(opened):
    return opened(Bundle(profile=layered(), structure=graphed()), f"{AT}&row=features.2")


def test_a_residual_block_is_drawn(residual):
    assert drawn(residual) == ["input", "conv", "add()", "output"]
    assert residual.locator(".flow .way").count() == 4
    assert "features.2: 4 nodes, 4 edges" in residual.locator("#panel").inner_text()
    told = node(residual, "add()").get_attribute("aria-label")
    assert told == ("add(); function; from input [2, 8, 16, 16], conv [2, 8, 16, 16]; to output")
    # The residual goes beside the layer that it passes.
    tall = residual.locator(".flow .way").nth(1).bounding_box()["height"]
    assert tall > node(residual, "conv").bounding_box()["height"]
    # No line, nor the head of a thick one, lies over a shape.
    kinds = residual.locator(".flow g[aria-hidden] > *").evaluate_all(
        "all => all.map(it => it.tagName)"
    )
    assert kinds == ["path"] * 4 + ["text"] * 4
    heads = residual.locator(".flow marker").get_attribute("markerUnits")
    assert heads == "userSpaceOnUse"


def test_colours_are_those_of_the_table(residual):
    residual.get_by_label("Heat by").select_option(label="Time")
    row(residual, "conv")
    bar = residual.evaluate(
        """() => [...document.querySelectorAll('.body .row')]
            .find((row) => row.textContent.includes('classifier'))
            .querySelector('.bar[style*="background"]').style.background"""
    )
    residual.get_by_role("button", name="TinyNet", exact=True).last.click()
    assert "µs" in node(residual, "mean()").text_content()
    fill = node(residual, "classifier").locator("rect").last.get_attribute("fill")
    red, green, blue = (int(fill[at : at + 2], 16) for at in (1, 3, 5))
    assert bar == f"rgb({red}, {green}, {blue})"
    before = fill
    residual.get_by_label("Heat by").select_option(label="Parameters")
    after = node(residual, "classifier")
    assert "90" in after.text_content()
    assert after.locator("rect").last.get_attribute("fill") != before


def test_a_node_stands_for_all_that_is_in_it(residual):
    """By self time, the module's own would be next to nothing where all of the work is in it."""
    residual.get_by_label("Heat by").select_option(label="Self time")
    assert "3.896 ms" in node(residual, "conv").text_content()
    residual.get_by_role("button", name="Up to the module").click()
    assert cell(residual, "2", "Time") in node(residual, "2").text_content()
    assert cell(residual, "2", "Self time") not in node(residual, "2").text_content()


def test_keys_go_along_the_tensors(residual):
    page = residual
    node(page, "input").focus()
    page.keyboard.press("ArrowDown")
    assert focused(page) == "conv"
    assert row(page, "conv").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert focused(page) == "add()"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "output"
    page.keyboard.press("Home")
    assert focused(page) == "input"
    page.keyboard.press("Backspace")
    assert drawn(page) == ["input", "0", "1", "2", "output"]
    assert focused(page) == "2"
    # To choose a module that can be opened does not open it.
    page.keyboard.press("ArrowUp")
    assert row(page, "1").get_attribute("aria-selected") == "true"
    assert drawn(page) == ["input", "0", "1", "2", "output"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert drawn(page) == ["input", "conv", "add()", "output"]
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert drawn(page) == ["input", "features", "mean()", "classifier", "output"]
    assert focused(page) == "features"
    # What cannot be opened stays, and is chosen.
    node(page, "classifier").focus()
    page.keyboard.press("Enter")
    assert focused(page) == "classifier"
    assert row(page, "classifier").get_attribute("aria-selected") == "true"
    # At the top, Escape is the page's.
    page.get_by_label("Search").fill("conv")
    node(page, "classifier").focus()
    page.keyboard.press("Escape")
    assert page.get_by_label("Search").input_value() == ""
    node(page, "features").click()
    page.get_by_role("button", name="Open the chosen node").click()
    assert drawn(page) == ["input", "0", "1", "2", "output"]


def test_the_focus_can_be_seen(residual):
    residual.keyboard.press("Tab")
    node(residual, "conv").focus()
    residual.keyboard.press("ArrowDown")
    width = residual.evaluate(
        "getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth"
    )
    assert width == "4px"


def test_it_follows_the_table_and_the_address(opened):
    page = opened(Bundle(profile=layered(), structure=graphed()), AT)
    assert drawn(page) == ["input", "features", "mean()", "classifier", "output"]
    row(page, "2").click()
    assert drawn(page) == ["input", "conv", "add()", "output"]
    node(page, "conv").click()
    page.wait_for_url(re.compile(r"row=features\.2\.conv&graph=features\.2&"))
    page.evaluate("location.hash = 'tab=graph&graph=features'")
    page.wait_for_selector("text=features: 5 nodes, 4 edges")


def test_a_module_called_twice_is_two_nodes(opened):
    page = opened(graphed(), f"{AT}&graph=features.1")
    assert drawn(page) == ["input", "conv", "conv", "output"]


def test_a_table_says_the_same(residual):
    residual.locator(".listed summary").click()
    rows = residual.locator(".listed tbody tr")
    rows.last.wait_for()
    assert rows.nth(2).locator("td").all_inner_texts()[2:] == [
        "input ([2, 8, 16, 16]), conv ([2, 8, 16, 16])",
        "output",
    ]


def test_a_large_graph_is_folded_and_opened_on_demand(opened):
    page = opened(long_graph(), f"{AT}&graph=features")
    first = drawn(page)
    assert len(first) <= MOST_DRAWN
    assert "nodes for 902 calls" in page.locator("#panel").inner_text()
    node(page, first[0]).focus()
    page.keyboard.press("Enter")
    opened_ones = drawn(page)
    assert len(first) < len(opened_ones) <= MOST_DRAWN
    page.keyboard.press("Backspace")
    assert drawn(page) == first
    for _ in range(8):  # never more than can be drawn, however many are opened
        page.locator(".flow .node.fold").last.dblclick()
        assert len(drawn(page)) <= MOST_DRAWN


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1400)])
def test_everybody_can_use_it(residual, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    residual.emulate_media(color_scheme=scheme)
    residual.set_viewport_size({"width": width, "height": 900})
    residual.locator(".listed summary").click()
    residual.locator(".listed table").wait_for()
    found = Axe().run(residual)
    assert found.violations_count == 0, found.generate_report()


def test_the_picture_can_be_saved(residual, tmp_path):
    with residual.expect_download() as saved:
        residual.get_by_role("button", name="Save the graph as SVG").click()
    assert saved.value.suggested_filename == "tiny-features.2.svg"
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "add()" in text
    assert "var(" not in text


def test_larger_smaller_and_to_fit(residual):
    def width() -> int:
        return int(residual.locator(".flow svg").get_attribute("width"))

    fitting = width()
    assert fitting <= residual.locator(".flow").evaluate("box => box.clientWidth")
    residual.get_by_role("button", name="Larger").click()
    assert width() > fitting
    residual.get_by_role("button", name="Fit it into").click()
    assert width() == fitting


def test_without_a_graph_it_says_how_to_make_one(opened):
    page = opened(Bundle(profile=layered(), structure=structure()), AT)
    assert "layerbench mem --struct" in page.locator("#panel").inner_text()
    assert names(page)[0] == "TinyNet"


def test_one_figure_has_one_colour(opened):
    rows = [row.model_copy(update={"self_flops": row.self_flops and 7}) for row in structure().rows]
    page = opened(structure(rows=tuple(rows)), AT)
    assert page.locator(".legend .swatch").count() == 1
    assert "7 FLOPs" in page.locator(".legend").inner_text()


def test_one_of_each_is_said_so(opened):
    alone = graph("", [INPUT, OUTPUT], [(0, 1)])
    page = opened(structure(rows=structure().rows[:1], graphs=(alone,)), AT)
    assert "TinyNet: 2 nodes, 1 edge" in page.locator("#panel").inner_text().splitlines()
    assert page.locator(".found").inner_text() == "1 row"


def test_a_name_that_would_be_markup_is_text(opened):
    hostile = "</script><img src=x onerror=alert(1)>"
    nodes = [INPUT, ("module", hostile), ("function", hostile), ("held", hostile), OUTPUT]
    page = opened(structure(graphs=(graph("", nodes, [(0, 1), (1, 2), (2, 4)]),)), AT)
    assert drawn(page)[1] == hostile
    assert page.locator("img").count() == 0


def test_every_pair_of_layers_joined_is_laid_out_at_once(opened):
    """As many dense edges as there are: those that pass many ranks go around."""
    count = 150
    nodes = [INPUT, *[("module", str(at)) for at in range(count)], OUTPUT]
    edges = [(a, b) for b in range(count + 2) for a in range(b)]
    page = opened(structure(graphs=(graph("", nodes, edges),)), AT)
    assert page.locator(".flow .way").count() == len(edges)
    area = page.locator(".flow")
    assert area.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert re.search(r"152 nodes, 11,?476 edges", page.locator("#panel").inner_text())
