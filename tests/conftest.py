"""Golden files: expected outputs kept in ``tests/golden``, refreshed with ``--overwrite``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
