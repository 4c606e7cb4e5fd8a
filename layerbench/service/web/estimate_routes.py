"""Requests for estimates, jobs and results. Loads no torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.responses import Response

from layerbench.service.protocol.questions import Question
from layerbench.service.web import answers, schemas
from layerbench.service.web.database import OPEN, Database, Job, Result
from layerbench.service.web.dependencies import (
    ASKED,
    ENDED_OTHERWISE,
    FAILURES,
    PREFIX,
    RETRY,
    CatalogOf,
    DatabaseOf,
    JobId,
    JobsOf,
    Refresh,
    SettingsOf,
    accepted,
    problem,
    problems,
    queue_full,
    there,
    too_many_pixels,
)
from layerbench.service.web.job_queue import Jobs, QueueFull
from layerbench.service.web.model_catalog import Catalog, Unlisted
from layerbench.service.web.schemas import (
    JobAnswer,
    ResourceAnswer,
    StoredResult,
    TrainingTimeAnswer,
)
from layerbench.service.web.settings import Settings

View = Callable[[Result, Question, str | None], dict[str, Any]]


# How many answers made from stored results are kept as they were sent.
KEPT = 1024


Prefer = Annotated[
    str | None, Header(description="respond-async: a job at once, in place of a wait.")
]


api = APIRouter(prefix=PREFIX)


class _EstimateRequest:
    """What the three routes that take a question do with it."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        catalog: Catalog,
        database: Database,
        refresh: bool,
        wait_s: float,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._catalog = catalog
        self._database = database
        self._refresh = refresh
        self._wait_s = wait_s

    async def answered(self, question: Question, view: View) -> Response:
        """From the store, or from a measurement that is waited for; or a job."""
        try:
            await self._catalog.known()
        except Unlisted as error:
            return problem(503, str(error), **RETRY)
        if not self._refresh and (stored := self._jobs.stored(question)):
            # What is stored in a damaged form is measured anew.
            with suppress(ValueError, RecursionError):
                return _rendered(view, stored, question, None)
        complaint = self._complaint(question)
        if complaint is not None:
            return complaint
        try:
            job = self._jobs.ask(question)
        except QueueFull as error:
            return queue_full(error)
        if not self._wait_s:
            return accepted(self._jobs.job(job.id) or job, self._jobs)
        return self._outcome(await self._jobs.wait(job.id, self._wait_s), question, view)

    def _outcome(self, job: Job | None, question: Question, view: View) -> Response:
        assert job is not None
        if job.state in OPEN:
            return accepted(job, self._jobs)
        if job.state == "done" and (found := self._database.result(job.key)):
            return _rendered(view, found, question, job.id)
        kind, _, reason = job.reason.partition(": ")
        return problem(FAILURES.get(kind, ENDED_OTHERWISE), reason or job.reason)

    def _complaint(self, question: Question) -> Response | None:
        many = too_many_pixels(question.pixels, self._settings)
        if many is not None:
            return many
        wrong = self._catalog.complaint(question)
        return None if wrong is None else problem(422, wrong)


async def _estimate_request(
    settings: SettingsOf,
    jobs: JobsOf,
    catalog: CatalogOf,
    database: DatabaseOf,
    refresh: Refresh = False,
    prefer: Prefer = None,
) -> _EstimateRequest:
    wait_s = 0.0 if "respond-async" in (prefer or "") else settings.wait_s
    return _EstimateRequest(settings, jobs, catalog, database, refresh, wait_s)


EstimateRequest = Annotated[_EstimateRequest, Depends(_estimate_request)]


def _rendered(view: View, result: Result, question: Question, job: str | None) -> Response:
    return Response(_body(view, _Hashed(result), question, job), media_type="application/json")


class _Hashed:
    """A result known by its key and its moment, which nothing stored under a key shares."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self._known_by = (result.key, result.measured_at)

    def __hash__(self) -> int:
        return hash(self._known_by)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other._known_by == self._known_by


@functools.lru_cache(maxsize=KEPT)
def _body(view: View, hashed: _Hashed, question: Question, job: str | None) -> bytes:
    return json.dumps(view(hashed.result, question, job), allow_nan=False).encode()


@api.post(
    "/estimate-resource", response_model=ResourceAnswer,
    responses=ASKED, operation_id="estimate_resource",
)  # fmt: skip
async def estimate_resource(question: Question, asking: EstimateRequest) -> Response:
    """Memory and utilization at their peaks, and the time of a step or a forward."""
    return await asking.answered(question, answers.resource)


@api.post(
    "/estimate-training-time", response_model=TrainingTimeAnswer,
    responses=ASKED,
    operation_id="estimate_training_time",
)  # fmt: skip
async def estimate_training_time(question: Question, asking: EstimateRequest) -> Response:
    """(Forward + backward) x batches x epochs, whatever `application_type` says."""
    training = question.model_copy(update={"application_type": "training"})
    return await asking.answered(training, answers.training_time)


@api.post(
    "/estimate-inference-time", response_model=schemas.InferenceTimeAnswer,
    responses=ASKED,
    operation_id="estimate_inference_time",
)  # fmt: skip
async def estimate_inference_time(question: Question, asking: EstimateRequest) -> Response:
    """The time of one image and of a batch, whatever `application_type` says."""
    inference = question.model_copy(update={"application_type": "inference"})
    return await asking.answered(inference, answers.inference_time)


@api.get("/jobs/{id}", responses=problems(404, 422, 503), operation_id="get_job")
async def get_job(id: JobId, jobs: JobsOf) -> JobAnswer:
    """How far a job is."""
    return answers.job_answer(there(jobs.job(id)))


@api.delete("/jobs/{id}", responses=problems(404, 422, 503), operation_id="cancel_job")
async def cancel_job(id: JobId, jobs: JobsOf) -> JobAnswer:
    """End a job; one that has ended stays as it is."""
    return answers.job_answer(there(await jobs.cancel(id)))


@api.get("/results", responses=problems(422, 503), operation_id="results")
async def results(
    database: DatabaseOf,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> list[StoredResult]:
    """What is stored, the newest first."""
    found = (answers.stored(result) for result in database.results(limit, offset))
    return [result for result in found if result is not None]


@api.get("/models", responses=problems(503), operation_id="models")
async def models(catalog: CatalogOf) -> dict[str, list[str]]:
    """Architectures by task."""
    try:
        await catalog.known()
    except Unlisted as error:
        raise HTTPException(503, str(error), RETRY) from None
    return catalog.names
