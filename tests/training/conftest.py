"""Fixtures of all files here."""

from __future__ import annotations

import pytest

from tests.support.pictures import draw_unrendered


@pytest.fixture
def rendered() -> None:
    """Asked for by tests of the pictures: theirs are rendered to the last letter."""


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of a training, but render no pixel: that takes longer than the training."""
    if "rendered" not in request.fixturenames:
        draw_unrendered(monkeypatch)
