"""The page within a notebook, in a real browser."""

from __future__ import annotations

import pytest

from layerbench.records.kinds import Record
from tests.support import sample_runs
from tests.support.sample_profiles import layered

_NOTEBOOK = """<!DOCTYPE html><meta charset="utf-8"><style>
* { color: rgb(255, 0, 0) !important; } table { display: none !important; }
</style>"""


def shown(page, tmp_path, record: Record, notebook: str = _NOTEBOOK):
    """The frame of a record in a page that has styles of its own."""
    page.context.set_offline(True)
    path = tmp_path / "notebook.html"
    path.write_text(notebook + record._repr_html_(), encoding="utf-8")
    page.goto(path.as_uri())
    return page.frame_locator("iframe")


def test_the_page_works_in_its_frame_and_the_notebooks_styles_stay_out(page, tmp_path) -> None:
    record = layered()
    frame = shown(page, tmp_path, record)
    frame.locator("html[data-ready]").wait_for()
    assert frame.locator("h1").inner_text() == "tiny"
    row = frame.locator("[role=row]").nth(1)
    row.click()
    assert row.evaluate("e => getComputedStyle(e).color") != "rgb(255, 0, 0)"
    page.wait_for_timeout(300)  # a page of its own would write its address now
    # The scripts in it have no way to the notebook.
    assert frame.locator("html").evaluate("() => self.origin") == "null"


def test_a_page_without_scripts_is_shown_too(page, tmp_path) -> None:
    frame = shown(page, tmp_path, sample_runs.sweep())
    frame.locator("h1").wait_for()


@pytest.mark.parametrize(
    ("theme", "dark"),
    [
        ('data-jp-theme-light="false"', True),
        ('data-jp-theme-light="true"', False),
        ('class="vscode-body vscode-dark"', True),
    ],
)
def test_the_page_is_as_light_as_the_notebook(page, tmp_path, theme, dark) -> None:
    page.emulate_media(color_scheme="null")  # else the browser would say so, and not the notebook
    frame = shown(page, tmp_path, sample_runs.sweep(), f"<!DOCTYPE html><body {theme}>")
    frame.locator("h1").wait_for()
    seen = "() => matchMedia('(prefers-color-scheme: dark)').matches"
    assert frame.locator("html").evaluate(seen) is dark
