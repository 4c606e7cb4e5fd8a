"""Pictures of the report, and of the live viewer while it measures: ``screenshots.py FOLDER``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

# With the first screen above the tree.
SIZE = {"width": 1360, "height": 1380}
MODEL, ROUNDS = "resnet50", "100"
MINUTES_MS = 3 * 60 * 1000


def main(folder: Path) -> None:
    """Both pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        report(page, folder)
        with viewer() as address:
            live(page, address, folder)
        browser.close()


def chromium() -> str:
    """The browser's path."""
    path = os.environ.get("LAYERBENCH_CHROMIUM") or shutil.which("chromium-headless-shell")
    if not path:
        sys.exit("no browser: apt-get install chromium-headless-shell")
    return path


def report(page: Page, folder: Path) -> None:
    """The first screen and the blocks, a row chosen."""
    page.goto(f"{(folder / 'report.html').resolve().as_uri()}#row=features.2.conv")
    page.wait_for_selector("html[data-ready]")
    page.screenshot(path=folder / "report.png")


@contextmanager
def viewer() -> Iterator[str]:
    """The address of a viewer of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["view", "--port", "0", "--database", f"{folder}/view.db", "--no-open"]
        process = subprocess.Popen(
            [sys.executable, "-m", "layerbench", *command],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                address = re.search(r"http://[\d.]+:\d+/", line)
                if address:
                    yield address[0]
                    break
        finally:
            process.terminate()
            process.wait()


def live(page: Page, address: str, folder: Path) -> None:
    """While it is measured: rows filled in, the running one marked."""
    page.goto(f"{address}#depth=2&fold=0")
    page.wait_for_selector("html[data-ready]", timeout=MINUTES_MS)
    page.get_by_label("Model").fill(MODEL)
    page.get_by_label("Rounds").fill(ROUNDS)
    page.get_by_role("button", name="Show").click()
    page.wait_for_selector("html[data-shown]", timeout=MINUTES_MS)
    page.get_by_role("button", name="Measure").click()
    page.get_by_text(re.compile(r"^[2-9]\d of 100")).wait_for(timeout=MINUTES_MS)
    page.locator(".row.running").wait_for(timeout=MINUTES_MS)
    page.screenshot(path=folder / "live.png")
    page.get_by_role("button", name="Cancel").click()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
