"""What the routes share: what they work with, how they refuse, what they document. No torch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse

from layerbench.errors import RecordError
from layerbench.service.web import answers
from layerbench.service.web.database import Database
from layerbench.service.web.health import Health
from layerbench.service.web.job_queue import Jobs, QueueFull
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.model_catalog import Catalog, Unlisted
from layerbench.service.web.record_library import Unknown
from layerbench.service.web.record_process import Crowded, Records
from layerbench.service.web.schemas import JobAnswer, Problem
from layerbench.service.web.settings import Settings
from layerbench.service.web.structure_process import StructureProcess
from layerbench.service.web.tables import Job
from layerbench.service.web.worker_process import ChildFailed

PREFIX = "/api/v1"
RETRY_S = 5
RETRY = {"Retry-After": str(RETRY_S)}
FAILURES = {"refused": 422, "died": 502, "deadline": 504, "device": 503, "store": 503}
ENDED_OTHERWISE = 409


def problem(status: int, detail: str, **headers: str) -> JSONResponse:
    """Why there is no answer."""
    # What names a file may hold bytes that are no text.
    text = detail.encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": text}, status, headers)


# What a route answers where one of these is raised; in the error's own words if there are none.
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    Unlisted: (503, ""),
    Crowded: (503, "too many wait for records: come again later"),
    Unknown: (404, "there is no such record"),
    RecordError: (422, ""),
    QueueFull: (429, ""),
    ChildFailed: (502, ""),
}


async def refusal(_: Request, error: Exception) -> JSONResponse:
    """The reason for refusing, if a route raised one of `REFUSALS`."""
    status, words = REFUSALS[type(error)]
    headers = RETRY if status == 503 else {}
    if isinstance(error, QueueFull):
        headers = {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, ChildFailed):
        status = FAILURES[error.kind]
        headers = RETRY if status == 503 else {}
    return problem(status, words or str(error), **headers)


def check_pixels(count: int, settings: Settings) -> None:
    """Refuse a batch of more pixels than a request may have.

    Raises:
        HTTPException: it has more.
    """
    most = settings.most_pixels
    if count > most:
        raise HTTPException(422, f"batch times height times width may be {most}, not {count}")


async def accepted(job: Job, jobs: Jobs) -> JSONResponse:
    """A job as it is now, to be asked for."""
    job = await jobs.job(job.id) or job
    where = {"Location": f"{PREFIX}/jobs/{job.id}", "Retry-After": str(jobs.wait_s)}
    return JSONResponse(answers.job_answer(job).model_dump(mode="json"), 202, where)


def there(job: Job | None) -> Job:
    """A job that is there.

    Raises:
        HTTPException: it is not.
    """
    if job is None:
        raise HTTPException(404, "there is no such job")
    return job


# --- what is documented ----------------------------------------------------------------------


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers where something is wrong, for its documentation."""
    return {status: PROBLEMS[status] for status in statuses}


def _documented(description: str, **headers: str) -> dict[str, Any]:
    documented = {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
        for name, text in headers.items()
    }
    return {"model": Problem, "description": description, "headers": documented}


PROBLEMS: dict[int, dict[str, Any]] = {
    400: _documented("The body is no JSON in UTF-8."),
    401: _documented("No API key in X-API-Key, or a wrong one."),
    403: _documented(
        "Asked from another machine, and there is no API key; or under a foreign Host."
    ),
    404: _documented("There is no such thing."),
    409: _documented("The job was cancelled or interrupted, or has not ended."),
    411: _documented("No Content-Length."),
    413: _documented("The body is too long."),
    422: _documented("The question makes no sense, or cannot be measured."),
    429: _documented("The queue is full.", Retry_After="Seconds until it is worth asking again."),
    502: _documented("The measuring process died."),
    503: _documented("The service cannot do that now."),
    504: _documented("The measurement took longer than it may."),
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": JobAnswer,
        "description": "A job, to be asked for at Location.",
        "headers": {
            "Location": {"description": "Of the job.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}},
        },
        "links": {
            "job": {"operationId": "get_job", "parameters": {"id": "$response.body#/id"}},
            "cancel": {"operationId": "cancel_job", "parameters": {"id": "$response.body#/id"}},
        },
    }
}
QUESTION_RESPONSES = {**ACCEPTED, **problems(400, 409, 422, 429, 502, 503, 504)}


# --- what routes are given -------------------------------------------------------------------


def _state(name: str) -> Callable[[Request], Awaitable[Any]]:
    # Not `def`: FastAPI would take a thread for each, which costs more than all else in a request.
    async def found(request: Request) -> Any:  # noqa: ANN401 - whatever is kept under the name
        return getattr(request.app.state, name)

    return found


SettingsOf = Annotated[Settings, Depends(_state("settings"))]
JobsOf = Annotated[Jobs, Depends(_state("jobs"))]
CatalogOf = Annotated[Catalog, Depends(_state("catalog"))]
DatabaseOf = Annotated[Database, Depends(_state("database"))]
MetricsOf = Annotated[Metrics, Depends(_state("metrics"))]
ArchitectOf = Annotated[StructureProcess, Depends(_state("architect"))]
RecordsOf = Annotated[Records, Depends(_state("records"))]
HealthOf = Annotated[Health, Depends(_state("health"))]
Refresh = Annotated[bool, Query(description="Measure or predict again, whatever is stored.")]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["0" * 32])]
