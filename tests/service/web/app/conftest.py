"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from layerbench.service.web.app import create_app
from layerbench.service.web.settings import Settings
from tests.support import service_child
from tests.support.paths import ROOT
from tests.support.serving import HERE


@pytest.fixture(autouse=True)
def started(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """Works that were begun, in order: what measuring processes noted."""
    noted = tmp_path / "started"
    noted.touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(service_child.STARTED, str(noted))
    return lambda: noted.read_text().splitlines()


@pytest.fixture
def serving(tmp_path):
    """``with serving(queue=3) as client``: an application on measuring processes of the tests."""

    @contextmanager
    def serve(**changes: object) -> Iterator[TestClient]:
        settings = {
            "database": tmp_path / "service.db",
            "locks": tmp_path,
            "child": "tests.support.service_child",
            "deadline": 60.0,
        }
        app = create_app(Settings(**{**settings, **changes}))
        with TestClient(app, base_url=HERE) as client:
            yield client

    return serve


@pytest.fixture
def client(serving):
    with serving() as found:
        yield found
