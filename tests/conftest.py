"""Golden files: expected outputs kept in ``tests/golden``, refreshed with ``--overwrite``."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layerbench.environment import watch
from tests.support.browser import Watched, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GOLDEN = Path(__file__).parent / "golden"
# Each of its tests takes seconds to half a minute, where most take a tenth of a second.
LONGEST = "test_commands_as_written.py"
# What takes long to load besides torch, while another process compiles that.
WITHOUT_TORCH = ("schemathesis", "scipy.stats", "matplotlib.pyplot", "sklearn.datasets", "fastapi")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--overwrite",
        action="store_true",
        help="write the golden files anew instead of comparing with them; then read the diff",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let every second of pytest-xdist's processes load the files from the last one on.

    Each of them loads all. Where none is compiled yet, all would compile the same file at the same
    time, and torch before. So they meet in the middle, and each reads what the other has compiled.
    """
    whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 2 == 0:
        return
    folder = Path(__file__).parent
    files = sorted(folder.rglob("test_*.py"), reverse=True)
    modules = [".".join(path.relative_to(folder.parent).with_suffix("").parts) for path in files]
    for name in (*WITHOUT_TORCH, *modules):
        # What is wrong with a file, its collection says.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first: pytest-xdist never takes a process's last two from it."""
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(text, suffix)``: the text equals the golden file named after the test."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")

    def check(text: str, suffix: str) -> None:
        path = GOLDEN / f"{name}{suffix}"
        if request.config.getoption("--overwrite"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        assert path.exists(), f"no golden file {path.name}: write it with pytest --overwrite"
        with path.open(encoding="utf-8", newline="") as file:
            assert text == file.read()

    return check


@pytest.fixture(autouse=True, scope="session")
def _locks_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytest-xdist's processes measure at the same time, and no test waits for the machine's."""
    os.environ.setdefault("LAYERBENCH_LOCKS", str(tmp_path_factory.mktemp("locks")))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure at once: no wait to see whether a loaded machine still is, and short collections."""
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    # No machine is switched off here; tests of what fails then have a call of their own.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    # What is there already, PyTorch's modules above all, need not be looked through each time.
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Lines of a server in this process end with its test, and libraries have their own again."""
    yield
    log = sys.modules.get("layerbench.service.web.log")
    if log is None:
        return
    log.drain_log()
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, log._Handler)]:
        root.removeHandler(handler)


# --- a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium, for the tests of one file."""
    # Ended with the file: while it is there, nothing else in this process can have an event loop.
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; an error on it, or a request that leaves the machine, fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    context.set_default_timeout(30_000)
    made = context.new_page()
    made.watched = Watched(made)
    yield made
    context.close()
    made.watched.check()
