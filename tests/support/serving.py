"""What tests of the service share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from starlette.testclient import TestClient

from layerbench.service.protocol.questions import EXAMPLE
from layerbench.service.web.app import create_app
from layerbench.service.web.settings import Settings

HERE = "http://127.0.0.1:8000"
RESOURCE = "/api/v1/estimate-resource"
RESULTS = "/api/v1/results"
ASYNC = {"Prefer": "respond-async"}


@contextmanager
def application(folder: Path, **changes: object) -> Iterator[TestClient]:
    """An application whose store is in the folder, on measuring processes of the tests."""
    settings = {
        "database": folder / "service.db",
        "locks": folder,
        "child": "tests.support.service_child",
    }
    app = create_app(Settings(**{**settings, **changes}))
    with TestClient(app, base_url=HERE) as client:
        yield client


def question(architecture: str = "quick", **changes: object) -> dict[str, object]:
    asked = {**EXAMPLE, "task_type": "classification", "architecture": architecture}
    return {**asked, "parameters": 10, **changes}


def ended(client: TestClient, id: str) -> dict[str, object]:
    """A job once it has ended."""
    for _ in range(600):
        job = client.get(f"/api/v1/jobs/{id}").json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
