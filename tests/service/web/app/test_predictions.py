"""Questions that name a card: predicted beside measurements, and stored apart from them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from layerbench.service.protocol.questions import MEASURED, Question
from layerbench.service.protocol.results import MeasurementResult
from layerbench.service.web.job_results import versions
from tests.support import service_child
from tests.support.service_process import until
from tests.support.serving import ASYNC, RESOURCE, RESULTS, question

TRAINING = "/api/v1/estimate-training-time"
INFERENCE = "/api/v1/estimate-inference-time"


@pytest.fixture(autouse=True)
def predicted(tmp_path, monkeypatch):
    """Predictions that were made, in order: architecture and card."""
    noted = tmp_path / "predicted"
    noted.touch()
    monkeypatch.setenv(service_child.PREDICTED, str(noted))
    return lambda: [line.rpartition(" ")[0] for line in noted.read_text().splitlines()]


def test_a_card_is_predicted_for_while_something_is_measured(client, started, predicted):
    client.post(RESOURCE, json=question("hang"), headers=ASYNC)
    until(started)
    body = client.post(RESOURCE, json=question(device="RTX 4090"), headers=ASYNC).json()
    about = body.pop("about")
    assert body == {
        "Peak GPU Memory": 2**30,
        "Peak GPU Utilization": None,
        "Peak RAM Memory": None,
        "Peak CPU Utilization": None,
        "Batch Time": {"forward_pass": 0.25, "backward_pass": 0.5},
        "RAM before training": None,
        "VRAM before training": None,
    }
    figures = ("Peak GPU Memory", "forward_pass", "backward_pass")
    assert about["method"] == dict.fromkeys(figures, "predicted")
    assert about["interval"] == {
        "Peak GPU Memory": [2**29, 2**31],
        "forward_pass": [0.125, 0.5],
        "backward_pass": [0.25, 1.0],
    }
    told = {name: about[name] for name in ("device", "steps", "stored", "job", "notes")}
    assert told == {
        "device": "rtx4090",
        "steps": 0,
        "stored": False,
        "job": None,
        "notes": ["times: not checked"],
    }
    assert about["environment"]["card"]["title"] == "NVIDIA GeForce RTX 4090"
    # The same card, however it is spelled; how hardware would be looked at changes nothing.
    asked = question(device="rtx4090", threading=True, dataset_size=10, epochs=3)
    body = client.post(TRAINING, json=asked).json()
    assert body["about"]["stored"]
    assert body["Total Training Time"] == pytest.approx((0.25 + 0.5) * 3 * 3)
    assert body["about"]["interval"]["Total Training Time"] == pytest.approx([0.375 * 9, 1.5 * 9])
    assert set(body["about"]["method"].values()) == {"predicted"}
    body = client.post(INFERENCE, json=asked).json()
    assert (body["1-Image Inference Time"], body["Batch of 4 Inference Time"]) == (0.125, 0.25)
    assert set(body["about"]["method"].values()) == {"predicted"}
    assert predicted() == ["quick rtx4090"] * 2
    assert len(started()) == 1
    # No part of the list of measurements.
    assert client.get(RESULTS).json() == []


def test_predictions_outlive_the_server_until_they_are_made_of_other_data(
    serving, predicted, monkeypatch, tmp_path
):
    def stored(device: str = "t4", *, refresh: bool = False) -> bool:
        asked = question(device=device)
        body = client.post(RESOURCE, params={"refresh": refresh}, json=asked).json()
        assert (body["Peak GPU Memory"], body["about"]["device"]) == (2**30, device)
        return body["about"]["stored"]

    with serving() as client:
        assert [stored(), stored(), stored(refresh=True)] == [False, True, False]
    with serving() as client:
        assert stored()
        store = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
        for damage in ("'{'", "'[]'", "json_remove(found, '$.parameters')"):
            store.execute(f"UPDATE results SET found = {damage}")
            assert [stored(), stored()] == [False, True]
        store.close()
    monkeypatch.setenv(service_child.PREDICTOR, "another fit")
    with serving() as client:
        assert [stored(), stored(), stored("v100")] == [False, True, False]
    assert predicted() == ["quick t4"] * 6 + ["quick v100"]


def test_many_identical_questions_are_predicted_once(client, predicted):
    with ThreadPoolExecutor(8) as pool:
        asked = [question("slow", device="t4") for _ in range(8)]
        found = [*pool.map(lambda one: client.post(RESOURCE, json=one), asked)]
    assert sorted(answer.json()["about"]["stored"] for answer in found) == [False] + [True] * 7
    assert predicted() == ["slow t4"]


def test_what_cannot_be_predicted_says_why_and_the_next_is(client, started):
    for changed, status, says in (
        ({"device": "rtx4091"}, 422, "no GPU 'rtx4091' is known (did you mean rtx4090"),
        ({"device": "cuda"}, 422, "no GPU 'cuda' is known: GET /api/v1/server lists"),
        ({"device": "mine.toml"}, 422, "no file is read over HTTP: GET /api/v1/server lists"),
        ({"device": "../t4"}, 422, "no file is read over HTTP: GET /api/v1/server lists"),
        ({"device": ""}, 422, "no file is read over HTTP: GET /api/v1/server lists"),
        ({"architecture": "quicc"}, 422, "no architecture 'quicc' for classification"),
        ({"batch_size": 65536, "image_size": [8192, 8192]}, 422, "batch times height times width"),
        ({"architecture": "refuse"}, 422, "this model takes no such image"),
        ({"architecture": "kill"}, 502, "SIGKILL"),
        ({"architecture": "malformed"}, 502, "what was predicted is no result"),
    ):
        answer = client.post(RESOURCE, json=question(**{"device": "t4", **changed}))
        assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
        assert answer.json()["detail"].isprintable()
    assert client.post(RESOURCE, json=question(device="t4")).status_code == 200
    assert started() == []


def test_questions_without_a_card_find_what_earlier_versions_stored(client):
    client.get("/api/v1/models")
    asked = Question.model_validate(question())
    content = {**dict.fromkeys(MEASURED), **question()}
    content = {name: content[name] for name in MEASURED if content[name] is not None}
    content |= {"device": "cpu", "versions": versions(MeasurementResult)}
    before = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert client.app.state.jobs._keys.key(asked) == before
    assert "device" not in asked.model_dump(mode="json")
    # The form of results is a part of the key, and knows no method but those that measure.
    figure = MeasurementResult.model_json_schema()["$defs"]["Figure"]
    assert figure["properties"]["method"]["enum"] == ["measured", "replayed", "analytic"]
