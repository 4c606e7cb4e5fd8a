"""A real browser for tests: Chromium, watched for errors and for whatever leaves the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from layerbench.records.bundle import Bundle
from layerbench.store import reading
from tests.support.paths import ROOT

# `.ci/run` sets it: there a missing browser is a failure.
REQUIRED = "LAYERBENCH_BROWSER_REQUIRED"
CHROMIUM = "LAYERBENCH_CHROMIUM"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("file:", "data:", "blob:", "http://127.0.0.1:", "about:")


def chromium() -> str:
    """The browser's path; without one the test is skipped, or fails where one must be."""
    found = os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    missing = f"no browser: apt-get install chromium-headless-shell, or say where with {CHROMIUM}"
    if os.environ.get(REQUIRED):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def launched() -> Iterator[object]:
    """A browser, ended at the end."""
    path = chromium()
    # Not at the top: what needs no browser does not wait for this.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """What went wrong on a page: errors, and requests to other machines."""

    def __init__(self, page) -> None:
        self.wrong: list[str] = []
        # Told by a test that expects them.
        self.expected: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console {message.type}: {message.text}")

    def _asked(self, request) -> None:
        if not request.url.startswith(LOCAL):
            self.wrong.append(f"request: {request.url}")

    def check(self) -> None:
        """Nothing went wrong but what was expected."""
        left = [wrong for wrong in self.wrong if not any(known in wrong for known in self.expected)]
        assert left == []


def full_bundle() -> Bundle:
    """Everything that a page can show: committed records of one model."""
    root = ROOT
    name = "mobilenet_v2_cityscapes.json"
    (profile,) = root.glob(f"stats/*/layers/{name}")
    return Bundle(
        profile=reading.read(profile),
        structure=reading.read(root / "model_structures" / name),
        memory=reading.read(root / "memory_reports" / name),
    )
