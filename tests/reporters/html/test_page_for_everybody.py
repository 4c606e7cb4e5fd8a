"""The page's units, its access for everybody, and what it shows of an accelerator."""

from __future__ import annotations

import random

import pytest

from layerbench import units
from layerbench.reporters.html.distributions import FIELDS
from tests.support.page_rows import CELLS, cell, row
from tests.support.sample_devices import launch_bound
from tests.support.sample_profiles import counted, deep, layered, summary

MOST_ROWS = 200


def test_the_page_writes_figures_as_the_reports_do(opened):
    page = opened(layered())
    pick = random.Random(3)
    values = [pick.uniform(0, 2) * 10 ** pick.randint(-10, 13) for _ in range(1500)]
    values += [0, 0.5, 1.5, 2.5, 0.125, 999.96e-6, 0.9995, 1152, 1280, 3.5 * 2**20, 1.125 * 2**30]
    widths = [
        None if n % 3 == 0 else abs(v) * 10 ** -pick.uniform(0, 7) for n, v in enumerate(values)
    ]
    # A width of nothing is no width.
    widths = [width or None for width in widths]
    found = page.evaluate(
        """async ([values, widths]) => {
            const u = await import("layerbench/units");
            return values.map((value, n) => [
                u.seconds(value, widths[n]), u.bytes(value), u.flops(value),
                u.count(Math.round(value)), u.percent(value), u.ratio(value),
                u.joules(value, widths[n]),
            ]);
        }""",
        [values, widths],
    )
    for value, width, told in zip(values, widths, found, strict=True):
        assert told == [
            units.seconds(value, width),
            units.bytes_(value),
            units.flops(value),
            units.count(int(value + 0.5)),
            units.percent(value, digits=1),
            units.ratio(value),
            units.joules(value, width),
        ]


def test_a_telephone_shows_the_figures_of_the_slowest_layers(opened):
    page = opened(counted())
    page.set_viewport_size({"width": 390, "height": 800})
    first = page.locator(".first")
    for seen in (first.get_by_role("columnheader", name="share"), first.locator("caption")):
        box = seen.bounding_box()
        assert box["x"] + box["width"] < 390


def test_paper_has_all_rows_that_are_open(opened):
    page = opened(deep(60, 3, 3))
    page.keyboard.press("f")
    page.keyboard.press("2")
    rows = int(page.locator("[role=treegrid]").get_attribute("aria-rowcount")) - 1
    assert rows > MOST_ROWS
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(CELLS).count() == rows
    last = page.locator(CELLS).last.bounding_box()
    assert last["y"] + last["height"] > 20 * rows
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(CELLS).count() < MOST_ROWS


SCHEMES = [("light", 390), ("dark", 1400)]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
def test_everybody_can_use_it(opened, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    from tests.support.browser import full_bundle

    page = opened(full_bundle())
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.keyboard.press("e")
    for tab in page.get_by_role("tab").all():
        tab.click()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_fields_are_the_summarys():
    assert all(hasattr(summary(1.0), name) for name in FIELDS)


def test_details_have_the_kernels_of_a_row_and_those_below(opened):
    page = opened(launch_bound())
    assert cell(page, "1", "Device kernels") == "4"
    assert cell(page, "1", "Host time") == "899.1 µs"
    row(page, "1").click()
    listed = page.locator("#panel h3:has-text('Kernels') + table tbody tr")
    assert listed.count() == 3
    assert listed.first.locator("td").all_inner_texts() == [
        *("features.1.conv", "conv2d", "2", "279.7 µs", "28.0 %")
    ]
    assert listed.first.locator("th").get_attribute("title").startswith("void cutlass::Kernel2<")
    row(page, "classifier").click()
    assert "Bound by\nlaunch" in page.locator("#panel").inner_text()
