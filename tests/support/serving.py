"""What tests of the service share."""

from __future__ import annotations

import time

import psutil
from starlette.testclient import TestClient

from layerbench.service.protocol.questions import EXAMPLE

HERE = "http://127.0.0.1:8000"


RESOURCE = "/api/v1/estimate-resource"


ASYNC = {"Prefer": "respond-async"}


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


RESULTS = "/api/v1/results"


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
