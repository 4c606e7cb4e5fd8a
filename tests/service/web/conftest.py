"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from layerbench.records.workload import Workload
from tests.support import service_child
from tests.support.paths import ROOT
from tests.support.sample_profiles import layered, whole
from tests.support.serving import application

Serving = Callable[..., AbstractContextManager[TestClient]]


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
def serving(tmp_path, drawn) -> Serving:
    """``with serving(queue=3) as client``: an application on measuring processes of the tests."""
    return partial(application, tmp_path)


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
