"""Golden files: expected outputs kept in ``tests/golden``, refreshed with ``--overwrite``."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerbench import environment

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--overwrite",
        action="store_true",
        help="write the golden files anew instead of comparing with them; then read the diff",
    )


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


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure at once: no wait to see whether a loaded machine still is, and short collections."""
    monkeypatch.setattr(environment, "LOOK_S", 0.01)
    # What is there already, PyTorch's modules above all, need not be looked through each time.
    gc.freeze()
    yield
    gc.unfreeze()
