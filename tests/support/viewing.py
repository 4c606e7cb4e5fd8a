"""What tests of the viewer share."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
from starlette.testclient import TestClient

STRUCTURES = "/api/v1/structures"
PROFILES = "/api/v1/profiles"
RECORDS = "/api/v1/records"


def draw(client: TestClient, architecture: str, **changes: object) -> httpx.Response:
    return client.post(STRUCTURES, json={"architecture": architecture, **changes})


NOBODY = "0" * 32


PROGRESS = {"kind": "progress", "phase": "measuring", "done": 3, "total": 300}


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, object]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
