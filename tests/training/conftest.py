"""Fixtures of all files here."""

from __future__ import annotations

import io

import pytest
from matplotlib.figure import Figure

# What a PNG file begins with.
UNRENDERED = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def rendered() -> None:
    """Asked for by tests of the pictures: theirs are rendered to the last letter."""


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of a training, but render no pixel: that takes longer than the training."""
    if "rendered" in request.fixturenames:
        return

    def savefig(figure: Figure, file: io.BytesIO, **options: object) -> None:
        file.write(UNRENDERED)

    monkeypatch.setattr(Figure, "savefig", savefig)
