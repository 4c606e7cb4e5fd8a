"""A server with a cluster: its devices measure beside the server's own, one job a device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.serving import ASYNC, RESOURCE, ended, question

TWO = {"a": ["epyc", "fast"], "b": ["epyc", "slow"]}
SERVER = "/api/v1/server"


@pytest.fixture
def nodes(tmp_path: Path) -> Callable[[dict[str, list[str]]], None]:
    """Lets nodes come and go."""
    path = tmp_path / "nodes.json"

    def set_nodes(content: dict[str, list[str]]) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(content))
        beside.replace(path)

    set_nodes(TWO)
    return set_nodes


@pytest.fixture
def on_cluster(tmp_path: Path, serving, nodes):
    def start(**changes: object):
        settings = {"cluster": str(tmp_path / "nodes.json"), "agent": "tests.support.cluster_agent"}
        return serving(**{**settings, **changes})

    return start


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def has(client: TestClient, **devices: int) -> Callable[[], bool]:
    return lambda: client.get(SERVER).json()["cluster"] == devices


def posted(client: TestClient, name: str, device: str, **headers: str) -> str:
    answer = client.post(RESOURCE, json=question(name, device=device), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def state(client: TestClient, id: str) -> str:
    return client.get(f"/api/v1/jobs/{id}").json()["state"]


def test_a_device_of_the_cluster_is_measured_on_and_the_answer_is_stored(
    on_cluster, started
) -> None:
    with on_cluster() as client:
        until(has(client, epyc=2))
        answer = client.post(RESOURCE, json=question(device="Fast"))
        assert answer.status_code == 200, answer.text
        about = answer.json()["about"]
        assert about["device"] == "epyc"
        assert not about["stored"]
        # However the device is called, it is the same question.
        again = client.post(RESOURCE, json=question(device="epyc"))
        assert again.json()["about"]["stored"]
        # And not that of this machine.
        here = client.post(RESOURCE, json=question())
        assert not here.json()["about"]["stored"]
    assert len(started()) == 2


def test_one_job_runs_on_each_device_and_one_here(on_cluster) -> None:
    with on_cluster() as client:
        until(has(client, epyc=2))
        asked = [{**question("hang"), "batch_size": batch, "device": "epyc"} for batch in (1, 2, 3)]
        jobs = [
            client.post(RESOURCE, json=one, headers=ASYNC).json()["id"]
            for one in (*asked, question("hang"))
        ]
        first, second, third, here = jobs
        until(lambda: [state(client, id) for id in (first, second, here)] == ["running"] * 3)
        assert state(client, third) == "queued"
        client.delete(f"/api/v1/jobs/{first}")
        until(lambda: state(client, third) == "running")
        assert state(client, first) == "cancelled"
        assert state(client, second) == "running"


def test_a_job_whose_node_dies_runs_on_another_one(on_cluster, nodes, started) -> None:
    with on_cluster() as client:
        nodes({"a": TWO["a"]})
        until(has(client, epyc=1))
        id = posted(client, "slow", "epyc")
        until(lambda: len(started()) == 1)
        nodes({"b": TWO["b"]})
        assert ended(client, id)["state"] == "done"
    assert len(started()) == 2


def test_a_device_that_nobody_has_is_refused_and_a_card_predicted(on_cluster) -> None:
    with on_cluster() as client:
        until(has(client, epyc=2))
        refused = client.post(RESOURCE, json=question(device="abacus"))
        assert refused.status_code == 422
        assert "the cluster has epyc" in refused.json()["detail"]
        predicted = client.post(RESOURCE, json=question(device="t4"))
        assert predicted.json()["about"]["device"] == "t4"
        assert "predicted" in predicted.json()["about"]["method"].values()


def test_without_its_cluster_a_server_answers_what_it_can(on_cluster, tmp_path) -> None:
    with on_cluster(cluster=str(tmp_path / "nowhere")) as client:
        until(lambda: "nowhere" in client.get("/health/ready").text)
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        assert client.post(RESOURCE, json=question(device="epyc")).status_code == 503
        assert client.post(RESOURCE, json=question()).status_code == 200


def test_without_a_cluster_none_is_listed(serving) -> None:
    with serving() as client:
        assert client.get(SERVER).json()["cluster"] is None
