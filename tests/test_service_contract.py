"""Every documented answer and no other: schemathesis over the whole OpenAPI document."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

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

from layerbench.service.questions import EXAMPLE
from tests.service_process import server

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = 15
# What the document cannot say makes a question unanswerable too: unknown names, too many pixels.
# And a job that was cancelled is still told.
EXCLUDED = [positive_data_acceptance, use_after_free]


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


def test_no_undocumented_answer(schema):
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        check(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
        # Of what takes nothing, nothing can be wrong.
        with suppress(Unsatisfiable):
            check(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))


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
