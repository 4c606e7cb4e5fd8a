"""The rows of the table in a page, as a reader finds them."""

from __future__ import annotations

import re

CELLS = "[role=treegrid] .body [role=row]"


def names(page) -> list[str]:
    """The rows in sight."""
    rows = page.locator(CELLS).all()
    rows.sort(key=lambda row: int(row.get_attribute("aria-rowindex")))
    return [row.locator(".cell").first.locator("span").nth(1).inner_text() for row in rows]


def row(page, name: str):
    exactly = re.compile(f"^{re.escape(name)}$")
    first = page.locator(".cell:first-child > span:nth-child(2)", has_text=exactly)
    return page.locator(CELLS, has=first).first


def cell(page, name: str, column: str) -> str:
    """What stands in a row under a column's name."""
    heads = page.locator("[role=columnheader]").all_inner_texts()
    return row(page, name).locator("[role=gridcell]").nth(heads.index(column)).inner_text()
