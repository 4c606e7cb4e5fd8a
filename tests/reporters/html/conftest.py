"""Reports opened in a real browser."""

from __future__ import annotations

import pytest

from layerbench import reporters


@pytest.fixture
def opened(page, tmp_path):
    """``opened(record)``: its report, from disk, with no network there is."""
    page.context.set_offline(True)

    def show(record, at: str = ""):
        path = tmp_path / "report.html"
        path.write_text(reporters.render("html", record), encoding="utf-8")
        page.goto(f"{path.as_uri()}{at}")
        page.wait_for_selector("html[data-ready]")
        return page

    return show
