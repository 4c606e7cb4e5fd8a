"""Requests for estimates, jobs and results. Loads no torch."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.responses import Response

from layerbench.environment import cards
from layerbench.service.protocol.questions import Question
from layerbench.service.web import answers, schemas
from layerbench.service.web.cluster_agent import ClusterAgent
from layerbench.service.web.database import Database
from layerbench.service.web.dependencies import (
    ENDED_OTHERWISE,
    FAILURES,
    PREFIX,
    QUESTION_RESPONSES,
    CatalogOf,
    DatabaseOf,
    JobId,
    JobsOf,
    Refresh,
    SettingsOf,
    accepted,
    check_pixels,
    problem,
    problems,
    there,
)
from layerbench.service.web.job_queue import Jobs
from layerbench.service.web.job_results import answers_next
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.predictions import Predictions
from layerbench.service.web.schemas import (
    JobAnswer,
    ResourceAnswer,
    ServerAnswer,
    StoredResult,
    TrainingTimeAnswer,
)
from layerbench.service.web.settings import Settings
from layerbench.service.web.store_place import shown
from layerbench.service.web.tables import Job, Result

View = Callable[[Result, Question, str | None, bool], dict[str, Any]]


# How many answers made from stored results are kept as they were sent.
KEPT = 1024


Prefer = Annotated[
    str | None, Header(description="respond-async: a job at once, in place of a wait.")
]


api = APIRouter(prefix=PREFIX)


@dataclass(frozen=True)
class _EstimateRequest:
    """What the three routes that take a question do with it."""

    settings: Settings
    jobs: Jobs
    predictions: Predictions
    catalog: Catalog
    database: Database
    agent: ClusterAgent | None
    refresh: bool
    wait_s: float

    async def answered(self, question: Question, view: View) -> Response:
        """From the store, from a prediction, or from a measurement that is waited for; or a job."""
        await self.catalog.known()
        question, here = self._with_device(question)
        found = None if self.refresh else await self._found(question, here)
        if (stored := answers_next(found)) is not None:
            # What is stored in a damaged form is measured anew.
            with suppress(ValueError, RecursionError):
                return _rendered(view, stored, question, None, True)
        check_pixels(question.pixels, self.settings)
        complaint = self.catalog.complaint(question)
        if complaint is not None:
            return problem(422, complaint)
        if not here:
            made, before = await self.predictions.made(question, anew=self.refresh)
            return _rendered(view, made, question, None, before)
        job = await self.jobs.ask(question, rejected=found, anew=self.refresh)
        if not self.wait_s:
            return await accepted(job, self.jobs)
        return await self._outcome(await self.jobs.wait(job.id, self.wait_s), question, view)

    def _with_device(self, question: Question) -> tuple[Question, bool]:
        """The question with the usual name of its device, and whether that is measured on.

        A device of the cluster is measured on; for any other card the figures are predicted.

        Raises:
            HTTPException: there is no such device.
        """
        if question.device is None:
            return question, True
        slot = None if self.agent is None else self.agent.named(question.device)
        if slot is not None:
            return question.model_copy(update={"device": slot.name}), True
        no_cluster = None if self.agent is None else self.agent.complaint
        if no_cluster is not None and cards.find(question.device) is None:
            raise HTTPException(503, no_cluster)
        there = () if self.agent is None else tuple(one.name for one in self.agent.slots)
        return _with_card(question, question.device, there), False

    async def _found(self, question: Question, here: bool) -> Result | None:
        if not here:
            return await self.predictions.stored(question)
        return await self.jobs.found(question)

    async def _outcome(self, job: Job | None, question: Question, view: View) -> Response:
        assert job is not None
        if job.open:
            return await accepted(job, self.jobs)
        if job.state == "done":
            result = await self.database.look_up(job.key)
            if result is not None:
                return _rendered(view, result, question, job.id, False)
        kind, _, reason = job.reason.partition(": ")
        return problem(FAILURES.get(kind, ENDED_OTHERWISE), reason or job.reason)


async def _estimate_request(
    request: Request, refresh: Refresh = False, prefer: Prefer = None
) -> _EstimateRequest:
    # FastAPI looks through a request for each dependency: five more took a fifth of the time that
    # the application needs for a stored answer.
    state = request.app.state
    wait_s = 0.0 if "respond-async" in (prefer or "") else state.settings.wait_s
    known = state.settings, state.jobs, state.predictions, state.catalog, state.database
    return _EstimateRequest(*known, state.agent, refresh, wait_s)


EstimateRequest = Annotated[_EstimateRequest, Depends(_estimate_request)]


def _with_card(question: Question, device: str, there: Sequence[str]) -> Question:
    """The question with the card that it names, as the table of cards has it.

    Args:
        question: that is asked.
        device: that it names.
        there: devices of the cluster.

    Raises:
        HTTPException: there is no such card.
    """
    card = cards.find(device)
    if card is None:
        measured = f"; the cluster has {', '.join(dict.fromkeys(there))}" if there else ""
        listed = f"{cards.unknown(device)}: GET {PREFIX}/server lists those that are{measured}"
        raise HTTPException(422, listed)
    return question.model_copy(update={"device": card.name})


def _rendered(
    view: View, result: Result, question: Question, job: str | None, stored: bool
) -> Response:
    return Response(_body(view, result, question, job, stored), media_type="application/json")


@functools.lru_cache(maxsize=KEPT)
def _body(view: View, result: Result, question: Question, job: str | None, stored: bool) -> bytes:
    return json.dumps(view(result, question, job, stored), allow_nan=False).encode()


@api.post(
    "/estimate-resource", response_model=ResourceAnswer,
    responses=QUESTION_RESPONSES, operation_id="estimate_resource",
)  # fmt: skip
async def estimate_resource(question: Question, asking: EstimateRequest) -> Response:
    """Memory and utilization at their peaks, and the time of a step or a forward."""
    return await asking.answered(question, answers.resource)


@api.post(
    "/estimate-training-time", response_model=TrainingTimeAnswer,
    responses=QUESTION_RESPONSES,
    operation_id="estimate_training_time",
)  # fmt: skip
async def estimate_training_time(question: Question, asking: EstimateRequest) -> Response:
    """(Forward + backward) x batches x epochs, whatever `application_type` says."""
    training = question.model_copy(update={"application_type": "training"})
    return await asking.answered(training, answers.training_time)


@api.post(
    "/estimate-inference-time", response_model=schemas.InferenceTimeAnswer,
    responses=QUESTION_RESPONSES,
    operation_id="estimate_inference_time",
)  # fmt: skip
async def estimate_inference_time(question: Question, asking: EstimateRequest) -> Response:
    """The time of one image and of a batch, whatever `application_type` says."""
    inference = question.model_copy(update={"application_type": "inference"})
    return await asking.answered(inference, answers.inference_time)


@api.get("/jobs/{id}", responses=problems(404, 422, 503), operation_id="get_job")
async def get_job(id: JobId, jobs: JobsOf) -> JobAnswer:
    """How far a job is."""
    return answers.job_answer(there(await jobs.job(id)))


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
    """What was measured and is stored, the newest first."""
    rows = map(answers.stored, await database.call(database.results, limit, offset))
    return [row for row in rows if row is not None]


@api.get("/server", responses=problems(503), operation_id="server")
async def server(request: Request, catalog: CatalogOf, settings: SettingsOf) -> ServerAnswer:
    """Devices, cards that estimates may be predicted for, and where results are stored."""
    await catalog.known()
    agent: ClusterAgent | None = request.app.state.agent
    return ServerAnswer(
        cluster=None if agent is None else Counter(slot.name for slot in agent.slots),
        device=catalog.device.partition(" ")[0],
        devices={
            place: called.partition(" ")[2] or called for place, called in catalog.devices.items()
        },
        cards={card.name: card.title for card in cards.known()},
        database=shown(settings.database),
    )


@api.get("/models", responses=problems(503), operation_id="models")
async def models(catalog: CatalogOf) -> dict[str, list[str]]:
    """Architectures by task."""
    await catalog.known()
    return catalog.names
