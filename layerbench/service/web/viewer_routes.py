"""The viewer's routes: structures at once, profiles with news on the way, records. No torch."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from layerbench.errors import RecordError
from layerbench.reporters.html import assets
from layerbench.service.protocol.questions import ProfileQuestion, ViewQuestion
from layerbench.service.web.answers import RecordAnswer
from layerbench.service.web.dependencies import (
    ACCEPTED,
    PREFIX,
    RETRY,
    ArchitectOf,
    CatalogOf,
    DatabaseOf,
    JobId,
    JobsOf,
    RecordsOf,
    Refresh,
    SettingsOf,
    accepted,
    check_pixels,
    problem,
    problems,
    there,
)
from layerbench.service.web.followed_jobs import state_of
from layerbench.service.web.job_events import KINDS, STATE, Event, Subscription, is_end
from layerbench.service.web.job_queue import Jobs
from layerbench.service.web.job_results import answers_next
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.page_documents import Documents, of_profile, of_structure
from layerbench.service.web.settings import Settings
from layerbench.service.web.structure_process import StructureProcess
from layerbench.service.web.tables import Result
from layerbench.service.web.worker_process import ChildFailed

HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"
STREAM = "text/event-stream"
JSON = "application/json"

ID_DIGITS = 16
RecordId = Annotated[str, Query(pattern=f"^[0-9a-f]{{{ID_DIGITS}}}$", examples=["0" * ID_DIGITS])]
RecordPath = Annotated[str, Path(pattern=f"^[0-9a-f]{{{ID_DIGITS}}}$", examples=["0" * ID_DIGITS])]
DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What the page shows, as `layerbench.reporters.html` reads it.",
        "content": {JSON: {"schema": {"type": "object"}}},
    }
}
# Of each event, as OpenAPI 3.1 describes a stream.
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": list(KINDS)},
        "data": {
            "type": "string",
            "contentMediaType": JSON,
            "contentSchema": {"type": "object"},
            "description": "A JSON object.",
        },
    },
}
NEWS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: state, progress, running, rows; a state that is an "
        "end is the last.",
        "content": {STREAM: {"schema": EVENT}},
    }
}

Viewed = TypeVar("Viewed", bound=ViewQuestion)

viewer = APIRouter(prefix=PREFIX)
page = APIRouter(include_in_schema=False)


async def _documents(request: Request) -> Documents:
    documents: Documents = request.app.state.documents
    return documents


DocumentsOf = Annotated[Documents, Depends(_documents)]


def _sent(document: bytes) -> Response:
    return Response(document, media_type=JSON)


# --- what may be asked about -----------------------------------------------------------------


async def _spelled_out(question: Viewed, catalog: Catalog, settings: Settings) -> Viewed:
    """The question with its architecture spelled out.

    Raises:
        HTTPException: it cannot be asked.
    """
    await catalog.known()
    name = question.architecture
    if name in settings.specs:
        check_pixels(question.pixels(resized=False), settings)
        return question
    if not question.named:
        raise HTTPException(422, f"{name!r} is no architecture's name; code is not run on request")
    name = catalog.spelled_out(name)
    if (wrong := catalog.unknown(name)) is not None:
        raise HTTPException(422, wrong)
    check_pixels(question.pixels(resized=catalog.resizes(name)), settings)
    return question.model_copy(update={"architecture": name})


# --- structures ------------------------------------------------------------------------------


@viewer.post(
    "/structures", response_class=Response,
    responses={**DOCUMENT, **problems(400, 422, 502, 503, 504)}, operation_id="structure",
)  # fmt: skip
async def structure(
    question: ViewQuestion,
    catalog: CatalogOf,
    settings: SettingsOf,
    architect: ArchitectOf,
    documents: DocumentsOf,
) -> Response:
    """What a model is made of: shapes, parameters and FLOPs of every layer, at once."""
    question = await _spelled_out(question, catalog, settings)
    keep = question.architecture not in settings.specs
    return _sent(await _structure(question, architect, documents, keep=keep))


async def _structure(
    question: ViewQuestion, architect: StructureProcess, documents: Documents, *, keep: bool
) -> bytes:
    """A structure's document; code of one's own may have changed since it was last made."""
    async with architect.turn:
        # Perhaps made for somebody else while this one waited.
        kept = documents.get(question) if keep else None
        if kept is not None:
            return kept
        answer = await architect.drawn(question)
    made = await asyncio.to_thread(of_structure, answer)
    if keep:
        documents.keep(question, made)
    return made


# --- profiles --------------------------------------------------------------------------------


@viewer.post(
    "/profiles", response_class=Response, operation_id="profile",
    responses={**DOCUMENT, **ACCEPTED, **problems(400, 422, 429, 503)},
)  # fmt: skip
async def profile(
    question: ProfileQuestion,
    catalog: CatalogOf,
    settings: SettingsOf,
    jobs: JobsOf,
    documents: DocumentsOf,
    refresh: Refresh = False,
) -> Response:
    """Times, structure and memory of every layer: what is stored, or a job that measures it."""
    question = await _spelled_out(question, catalog, settings)
    if (wrong := catalog.no_device(question.device)) is not None:
        raise HTTPException(422, wrong)
    # Code of one's own may have changed since it was measured.
    anew = refresh or question.architecture in settings.specs
    found = None if anew else await jobs.found(question)
    document = await _of_stored(answers_next(found), documents)
    if document is not None:
        return _sent(document)
    return await accepted(await jobs.ask(question, rejected=found, anew=anew), jobs)


@viewer.get(
    "/jobs/{id}/document", response_class=Response, operation_id="job_document",
    responses={**DOCUMENT, **problems(404, 409, 422, 503)},
)  # fmt: skip
async def job_document(
    id: JobId, jobs: JobsOf, database: DatabaseOf, documents: DocumentsOf
) -> Response:
    """What a job found that measured a profile."""
    job = there(await jobs.job(id))
    if job.what != ProfileQuestion.what:
        raise HTTPException(404, "the job measures no profile")
    if job.state != "done":
        raise HTTPException(409, f"the job is {job.state}: {job.reason}".removesuffix(": "))
    result = await database.look_up(job.key)
    document = await _of_stored(result, documents)
    if document is None:
        raise HTTPException(404, "what the job found is no longer stored")
    return _sent(document)


async def _of_stored(stored: Result | None, documents: Documents) -> bytes | None:
    """A stored profile's document; ``None`` where there is none, or only a damaged one."""
    if stored is None:
        return None
    key = (stored.key, stored.measured_at)
    try:
        return await documents.made(key, lambda: of_profile(stored.found))
    except RecordError:
        return None


# --- news ------------------------------------------------------------------------------------


@viewer.get(
    "/jobs/{id}/events", response_class=StreamingResponse, operation_id="job_events",
    responses={**NEWS, **problems(404, 422, 503)},
)  # fmt: skip
async def job_events(id: JobId, jobs: JobsOf) -> Response:
    """Events of a job: first its present state, then each new event."""
    there(await jobs.job(id))
    if jobs.crowded:
        return problem(503, "too many listen already: come again later", **RETRY)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(id, jobs), media_type=STREAM, headers=headers)


async def _stream(id: str, jobs: Jobs) -> AsyncIterator[bytes]:
    async with jobs.listened(id) as listener:
        if listener is None:
            job = await jobs.job(id)
            if job is not None:
                yield _event((STATE, state_of(job.state, job.reason)))
            return
        while True:
            news = await _news(listener)
            yield b"".join(map(_event, news)) if news else HEARTBEAT
            if news and news[-1][0] == STATE and is_end(news[-1][1]):
                return


async def _news(listener: Subscription) -> list[Event]:
    """What is new; nothing if that takes long."""
    try:
        return await asyncio.wait_for(listener.news(), HEARTBEAT_S)
    except asyncio.TimeoutError:
        return []


def _event(event: Event) -> bytes:
    kind, content = event
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()


# --- records ---------------------------------------------------------------------------------


@viewer.get("/records", responses=problems(503), operation_id="records")
async def records(library: RecordsOf) -> list[RecordAnswer]:
    """The records that the server was started with."""
    try:
        return await library.entries()
    except ChildFailed as error:
        raise HTTPException(503, f"records cannot be listed: {error.reason}", RETRY) from None


@viewer.get(
    "/records/{id}/document", response_class=Response, operation_id="record_document",
    responses={**DOCUMENT, **problems(404, 422, 503)},
)  # fmt: skip
async def record_document(id: RecordPath, library: RecordsOf) -> Response:
    """A record."""
    return _sent(await library.document(id))


@viewer.get(
    "/comparison", response_class=Response, operation_id="comparison",
    responses={**DOCUMENT, **problems(404, 422, 503)},
)  # fmt: skip
async def comparison(baseline: RecordId, contender: RecordId, library: RecordsOf) -> Response:
    """Two profiles of the same model and input, compared layer by layer."""
    return _sent(await library.comparison(baseline, contender))


# --- the page --------------------------------------------------------------------------------

SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
CHECKED = {**SAFE, "Cache-Control": "no-cache"}


@page.get("/")
async def live_page() -> Response:
    """The page."""
    text, policy = assets.live_page()
    headers = {**CHECKED, "Content-Security-Policy": policy}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@page.get("/static/{name:path}")
async def static(name: str, request: Request) -> Response:
    """A file of the page."""
    file = assets.static(name)
    if file is None:
        return problem(404, "there is no such file", **SAFE)
    text, kind = file
    tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
    headers = {**CHECKED, "ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(text, media_type=kind, headers=headers)
