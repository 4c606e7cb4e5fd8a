"""Every documented answer and no other: schemathesis over the whole OpenAPI document."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    use_after_free,
)
from starlette.testclient import TestClient

from layerbench.service.protocol.questions import EXAMPLE
from layerbench.service.web import api_reference
from layerbench.service.web.app import create_app
from layerbench.service.web.settings import Settings
from tests.support.paths import ROOT
from tests.support.service_process import server

EXAMPLES = 10
# What the document cannot say makes a question unanswerable too: unknown names, too many pixels.
# And a job that was cancelled is still told.
EXCLUDED = [positive_data_acceptance, use_after_free]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Of an application that measures nothing: what is asked of it is refused before."""
    settings = Settings(
        database=tmp_path_factory.mktemp("contract") / "service.db",
        child="tests.support.service_child",
    )
    with (
        pytest.MonkeyPatch.context() as patched,
        TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as found,
    ):
        patched.setenv("PYTHONPATH", str(ROOT))
        yield found


def tried(examples: int, **changes: int) -> settings:
    checks = list(HealthCheck)
    # No second time with the same calls: jobs have gone on meanwhile.
    phases = [Phase.explicit, Phase.generate]
    return settings(
        max_examples=examples,
        suppress_health_check=checks,
        deadline=None,
        phases=phases,
        database=None,
        derandomize=True,
        **changes,
    )


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """Of a server that measures with the tests' stand-in."""
    folder = tmp_path_factory.mktemp("service")
    with server(folder, LAYERBENCH_SERVE_WAIT_S="2", LAYERBENCH_SERVE_QUEUE="1000") as (_, url):
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.slow
def test_no_undocumented_answer(schema):
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        check(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
        # Of what takes nothing, nothing can be wrong.
        with suppress(Unsatisfiable):
            check(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))


def test_every_method_of_an_address_is_named(client):
    address = f"/api/v1/jobs/{'0' * 32}"
    for method in ("OPTIONS", "PUT", "MADE-UP"):
        answer = client.request(method, address)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET")
    assert client.options("/api/v1/estimate-resource").headers["Allow"] == "POST"
    assert client.post("/health/live", content=b"").headers["Allow"] == "GET"
    assert client.options("/openapi.json").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "changed",
    [
        {"threading": 0}, {"threading": "true"}, {"threading": None}, {"threading": []},
        {"batch_size": "1"}, {"batch_size": True}, {"batch_size": 1.0}, {"batch_size": [1]},
        {"epochs": True}, {"epochs": "3"}, {"dataset_size": 1e3}, {"parameters": "10"},
        {"parameters": False}, {"image_size": ["8", "8"]}, {"image_size": [True, True]},
        {"image_size": "88"}, {"image_size": {"8": 1, "9": 2}}, {"image_size": [8.0, 8.0]},
        {"architecture": 1}, {"architecture": ["quick"]}, {"task_type": True},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_another_kind_are_refused(client, changed):
    asked = {**EXAMPLE, "task_type": "classification", "architecture": "quick", **changed}
    answers = [client.post("/api/v1/estimate-resource", json=asked)]
    viewed = {"architecture": "quick", "batch_size": 1, "image_size": [8, 8]}
    looked = {name: value for name, value in changed.items() if name in viewed}
    if looked:
        answers.append(client.post("/api/v1/structures", json={**viewed, **looked}))
    for name, value in changed.items():
        if isinstance(value, (str, bool, float)) and name in ("batch_size", "epochs"):
            rounds = {**viewed, "warmup": value}
            answers.append(client.post("/api/v1/profiles", json=rounds))
    for answer in answers:
        assert answer.status_code == 422
        assert next(iter(changed)) in answer.json()["detail"] or "warmup" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:80", 200), ("127.0.0.1:8000", 200), ("[::1]", 200),
        ("[::1]:8000", 200), ("127.0.0.2", 200),
        ("localhost:80@evil.com", 403), ("127.0.0.1:evil.com", 403), ("[::1]evil.com", 403),
        ("[::1]:80.evil.com", 403), ("localhost:", 403), ("localhost:123456", 403), ("", 403),
        ("localhost, evil.com", 403), ("localhost evil.com", 403), ("localhost/evil.com", 403),
        ("[localhost]", 403), ("::1", 403), ("evil.com:80", 403), ("localhost.evil.com", 403),
        ("localhost:80:80", 403), ("user@localhost", 403), ("2130706433", 403), ("[::1", 403),
    ],
)  # fmt: skip
def test_under_which_name_it_is_asked(client, host, status):
    assert client.get("/health/live", headers={"Host": host}).status_code == status


def test_the_documentation_is_all_its_own(client):
    answer = client.get("/docs")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in answer.text
    assert set(re.findall(r"https?://[^/\s\"]+", answer.text)) == {"http://127.0.0.1:8000"}
    for path, methods in client.app.openapi()["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
    assert client.get("/redoc").status_code == 404


def test_the_documentation_takes_words_as_words():
    document = {
        "info": {"title": "<b>", "version": "&", "description": "<script>alert(1)</script>"},
        "paths": {
            "/<i>": {"get": {"operationId": '"><img>', "responses": {"200": {"description": "<"}}}}
        },
    }
    made = api_reference.page(document)
    assert not re.findall("<(?:script|b|i|img)>", made)


def test_the_answers_shown_are_answers(schema):
    """Real ones, as examples/service/service.sh got them: to the question shown."""
    document = schema.raw_schema
    for path in ("estimate-resource", "estimate-training-time", "estimate-inference-time"):
        operation = document["paths"][f"/api/v1/{path}"]["post"]
        shown = operation["responses"]["200"]["content"]["application/json"]
        definition = {**shown["schema"], "components": document["components"]}
        Draft202012Validator(definition).validate(shown["example"])
        about = shown["example"]["about"]
        assert about["parameters"]["asked"] == EXAMPLE["parameters"]
        assert about["parameters"]["found"] > EXAMPLE["parameters"]
        assert about["environment"]["device"]["slug"]
    question = json.loads((ROOT / "examples" / "service" / "question.json").read_text())
    assert question == EXAMPLE


def check(cases):
    @given(cases)
    @tried(EXAMPLES)
    def validated(case):
        case.call_and_validate(excluded_checks=EXCLUDED)

    validated()


def test_jobs_are_followed_from_answer_to_end(schema):
    seen = set()

    # The news of a job that goes on have no end, and the client here waits for one.
    ending = schema.exclude(operation_id="job_events")

    class Following(ending.as_state_machine()):
        def before_call(self, case, **_):
            if isinstance(case.body, dict):
                # One that can be measured, what is made up hardly ever can; and always answered
                # alike, also while others are: with a job.
                known = {"task_type": "classification", "architecture": "hang"}
                case.body.update(known, batch_size=1, image_size=[1, 1])
                case.headers["Prefer"] = "respond-async"
                case.query = {"refresh": "true"}

        def validate_response(self, response, case, additional_checks=None, **options):
            seen.add((case.method, case.path, response.status_code))
            case.validate_response(
                response,
                # What was wrong with a body is mended before.
                excluded_checks=[*EXCLUDED, negative_data_rejection],
                additional_checks=additional_checks,
                transport_kwargs=options or None,
                recorder=self.recorder,
            )

    Following.run(settings=tried(EXAMPLES, stateful_step_count=6))
    assert {("GET", "/api/v1/jobs/{id}", 200), ("DELETE", "/api/v1/jobs/{id}", 200)} <= seen
