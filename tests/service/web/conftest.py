"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from layerbench.records.workload import Workload
from layerbench.service.web.app import create_app
from layerbench.service.web.settings import Settings
from tests.support import service_child
from tests.support.paths import ROOT
from tests.support.sample_profiles import layered, whole
from tests.support.viewing import HERE


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """Architectures whose structure was worked out, besides the one to warm up."""
    noted = tmp_path / "drawn"
    noted.touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(service_child.DRAWN, str(noted))
    return lambda: [
        line.split()[0]
        for line in noted.read_text().splitlines()
        if not line.startswith("resnet18")
    ]


@pytest.fixture
def serving(tmp_path, drawn):
    @contextmanager
    def serve(**changes: object) -> Iterator[TestClient]:
        settings = {
            "database": tmp_path / "service.db",
            "locks": tmp_path,
            "child": "tests.support.service_child",
        }
        app = create_app(Settings(**{**settings, **changes}))
        with TestClient(app, base_url=HERE) as client:
            yield client

    return serve


@pytest.fixture
def client(serving):
    with serving() as found:
        yield found


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two profiles, a structure, one that is broken, and what is no record."""
    found = tmp_path / "shelf"
    (found / "deep").mkdir(parents=True)
    texts = {
        "a.json": layered().model_dump_json(by_alias=True),
        "deep/b.json": layered().model_dump_json(by_alias=True),
        "c.json": service_child.structure("tiny").model_dump_json(),
        "broken.json": '{"record": "profile"',
        "x.trace.json": "{}",
        "other.json": whole()
        .model_copy(update={"workload": Workload(model="b", input="1x1", shape=(1, 1), batch=1)})
        .model_dump_json(by_alias=True),
    }
    for name, text in texts.items():
        (found / name).write_text(text)
    return found
