"""What the viewer's routes give of structures and of records."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest

from layerbench.environment import devices
from layerbench.service.protocol.questions import ProfileQuestion
from layerbench.service.web import page_documents
from layerbench.service.web import structure_process as architect_module
from layerbench.service.worker.catalog import devices_for
from tests.support.sample_profiles import layered
from tests.support.service_process import until
from tests.support.serving import ended
from tests.support.viewing import PROFILES, RECORDS, STRUCTURES, draw


def test_a_structure_is_worked_out_once(client, drawn):
    answer = draw(client, "quick")
    assert answer.status_code == 200
    assert answer.json()["rows"]["path"] == ["", "classifier"]
    assert draw(client, "fast").content == answer.content
    assert drawn() == ["quick"]
    draw(client, "quick", image_size=[64, 64])
    assert drawn() == ["quick", "quick"]


def test_only_so_many_are_kept(client, drawn, monkeypatch):
    monkeypatch.setattr(page_documents, "KEPT", 2)
    for name in ("quick1", "quick2", "quick1", "quick3", "quick1", "quick2"):
        assert draw(client, name).status_code == 200
    assert drawn() == ["quick1", "quick2", "quick3", "quick2"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"architecture": "quicc"}, "no architecture 'quicc': did you mean quick"),
        ({"architecture": "my.py:net"}, "'my.py:net' is no architecture's name"),
        ({"architecture": "os:abort"}, "code is not run on request"),
        ({"architecture": ""}, "architecture: String should have at least 1"),
        ({"architecture": "quick", "image_size": [1]}, "image_size"),
        ({"architecture": "quick", "batch_size": 65536}, "batch times height times width"),
        ({"architecture": "quick", "task_type": "detection"}, "Extra inputs"),
    ],
)
def test_structures_and_profiles_of_what_cannot_be_meant(client, drawn, asked, says):
    for route in (STRUCTURES, PROFILES):
        answer = client.post(route, json=asked)
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True)
    assert drawn() == []


@pytest.mark.parametrize(
    ("work", "status", "says"),
    [
        ("refuse", 422, "this model takes no such image"),
        ("kill", 502, "ended by SIGKILL"),
        ("exit", 502, "ended with status 0 and no answer"),
        ("hang", 504, "it took longer than 1 s"),
    ],
)
def test_a_structure_that_cannot_be_told_and_the_next_that_can(
    client, monkeypatch, work, status, says
):
    client.get("/api/v1/models")
    monkeypatch.setattr(architect_module, "DRAWING_S", 1.0)
    answer = draw(client, work)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True)
    monkeypatch.setattr(architect_module, "DRAWING_S", 60.0)
    assert draw(client, "quick").status_code == 200
    assert draw(client, "brief").status_code == 200


def test_the_process_that_draws_is_killed_while_nobody_asks(client):
    assert draw(client, "quick").status_code == 200
    process = client.app.state.architect._child.process
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.returncode is not None)
    assert draw(client, "quick1").status_code == 200
    assert client.app.state.architect._child.process.pid != process.pid


def test_a_model_of_ones_own_is_made_anew_each_time(serving, drawn):
    with serving(specs=("my.py:net",)) as client:
        for _ in range(2):
            assert draw(client, "my.py:net").status_code == 200
        assert draw(client, "my.py:other").status_code == 422
    assert drawn() == ["my.py:net"] * 2


def test_settings_of_a_profile_that_cannot_be_meant(client):
    for asked, says in (
        ({"device": "cuda:7"}, "no device 'cuda:7' here: cpu, cuda:0"),
        ({"device": "auto"}, "no device 'auto' here"),
        ({"device": "../x"}, "device: String should match"),
        ({"threads": 0}, "threads: "),
        ({"threads": 100_000}, "threads: "),
        ({"threads": True}, "threads: "),
        ({"precision": "int8"}, "precision: "),
        ({"dtype": "int8"}, "dtype: "),
        ({"mode": "predict"}, "mode: "),
        ({"channels_last": 1}, "channels_last: "),
        ({"warmup": -1}, "warmup: "),
    ):
        answer = client.post(PROFILES, json={"architecture": "quick", **asked})
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True), answer.json()


def test_a_profile_is_kept_by_its_settings_and_by_what_its_device_is(client, tmp_path):
    asked = {"architecture": "quick", "threads": 2, "mode": "train", "dtype": "bfloat16"}
    job = client.post(PROFILES, json=asked).json()["id"]
    assert ended(client, job)["state"] == "done"
    # The same device, said by its name.
    assert client.post(PROFILES, json={**asked, "device": "cpu"}).status_code == 200
    answer = client.post(PROFILES, json={**asked, "device": "cuda:0"})
    assert answer.status_code == 202
    assert ended(client, answer.json()["id"])["state"] == "done"
    changes = ({}, {"threads": 3}, {"mode": "eval"}, {"channels_last": True}, {"device": "cuda:0"})
    questions = [ProfileQuestion.model_validate({**asked, **other}) for other in changes]
    assert len(set(map(client.app.state.jobs._keys.key, questions))) == len(changes)
    # Each device is measured on by one at a time.
    locks = {path.name for path in tmp_path.glob("layerbench-*.lock")}
    assert locks == {"layerbench-cpu.lock", "layerbench-cuda-0.lock"}


def test_where_it_measures_and_stores(client, tmp_path):
    told = client.get("/api/v1/server").json()
    assert told.pop("cards")["t4"] == "NVIDIA T4"
    assert told == {
        "device": "cpu",
        "devices": {"cpu": "cpu", "cuda:0": "a-gpu"},
        "cluster": None,
        "database": str(tmp_path / "service.db"),
    }


def test_only_the_device_that_the_server_was_told_is_offered():
    assert list(devices_for("cpu")) == ["cpu"]
    assert list(devices_for(None)) == devices.names()


def test_no_room_for_a_profile(serving):
    with serving(queue=1) as client:
        asked = [{"architecture": "hang", "batch_size": number} for number in (1, 2, 3)]
        assert client.post(PROFILES, json=asked[0]).status_code == 202
        until(lambda: not client.app.state.jobs.idle)
        assert client.post(PROFILES, json=asked[1]).status_code == 202
        refused = client.post(PROFILES, json=asked[2])
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1


def test_records_are_listed_shown_and_compared(serving, folder):
    with serving(records=(folder, folder / "a.json")) as client:
        listed = client.get(RECORDS).json()
        by_path = {entry["path"]: entry for entry in listed}
        assert list(by_path) == [
            "shelf/a.json", "shelf/broken.json", "shelf/c.json", "shelf/deep/b.json",
            "shelf/other.json",
        ]  # fmt: skip
        first = by_path["shelf/a.json"]
        assert {name: first[name] for name in first if name != "id"} == {
            "path": "shelf/a.json",
            "kind": "profile",
            "model": "tiny",
            "input": "2x3x32x32",
            "device": "amd-epyc-2c",
            "measured_at": "2025-03-01T10:00:00Z",
            "layers": len(layered().layers),
            "problem": None,
        }
        assert by_path["shelf/c.json"]["device"] is None
        broken = by_path["shelf/broken.json"]
        assert broken["problem"].startswith("shelf/broken.json is cut short")
        assert str(folder) not in json.dumps(listed)

        answer = client.get(f"{RECORDS}/{first['id']}/document")
        assert answer.json()["rows"]["path"][:2] == ["", "features"]
        answer = client.get(f"{RECORDS}/{broken['id']}/document")
        assert (answer.status_code, "is cut short" in answer.json()["detail"]) == (422, True)
        assert client.get(f"{RECORDS}/{'0' * 16}/document").status_code == 404
        assert client.get(f"{RECORDS}/..%2Fa.json/document").status_code == 404

        def compared(baseline: str, contender: str) -> httpx.Response:
            ids = {"baseline": baseline, "contender": contender}
            return client.get("/api/v1/comparison", params=ids)

        second, other = by_path["shelf/deep/b.json"]["id"], by_path["shelf/other.json"]["id"]
        answer = compared(first["id"], second)
        assert answer.status_code == 200
        assert answer.json()["changed"] is not None
        answer = compared(first["id"], other)
        assert answer.status_code == 422
        assert "shelf/a.json measured tiny" in answer.json()["detail"]
        answer = compared(first["id"], by_path["shelf/c.json"]["id"])
        assert "shelf/c.json is not a profile" in answer.json()["detail"]
        assert compared(first["id"], "0" * 16).status_code == 404
        assert compared(first["id"], "../a.json").status_code == 422


def test_a_record_is_read_again_once_it_has_changed(serving, folder):
    with serving(records=(folder,)) as client:
        client.get(RECORDS)
        (folder / "broken.json").write_text(layered().model_dump_json(by_alias=True))
        (folder / "c.json").unlink()
        listed = {entry["path"]: entry for entry in client.get(RECORDS).json()}
        assert listed["shelf/broken.json"]["problem"] is None
        assert "shelf/c.json" not in listed


def test_without_records_there_are_none(client):
    assert client.get(RECORDS).json() == []
