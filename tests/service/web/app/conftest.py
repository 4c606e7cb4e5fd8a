"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.service.web.conftest import Serving
from tests.support import service_child
from tests.support.paths import ROOT
from tests.support.serving import application


@pytest.fixture(autouse=True)
def started(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """Works that were begun, in order: what measuring processes noted."""
    noted = tmp_path / "started"
    noted.touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(service_child.STARTED, str(noted))
    return lambda: noted.read_text().splitlines()


@pytest.fixture
def serving(tmp_path) -> Serving:
    """As for the other tests of the web process; measurements end sooner."""
    return partial(application, tmp_path, deadline=60.0)
