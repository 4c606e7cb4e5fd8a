"""The HTTP application: ``uvicorn layerbench.service:app``. Loads no torch.

Routes check what is asked, ask the job queue, and put what was found into words; they
measure nothing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from layerbench._version import __version__
from layerbench.errors import UsageError
from layerbench.service.protocol.questions import CARD
from layerbench.service.web import api_reference
from layerbench.service.web.cluster_agent import ClusterAgent
from layerbench.service.web.database import Database, StoreDamaged, StoreError
from layerbench.service.web.dependencies import (
    PREFIX,
    PROBLEMS,
    REFUSALS,
    RETRY,
    HealthOf,
    MetricsOf,
    problem,
    problems,
    refusal,
)
from layerbench.service.web.estimate_routes import api
from layerbench.service.web.health import Health
from layerbench.service.web.job_queue import Jobs
from layerbench.service.web.log import configure_log, drain_log
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.middleware import RequestMiddleware
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.page_documents import Documents
from layerbench.service.web.predictions import Predictions
from layerbench.service.web.record_process import Records
from layerbench.service.web.schemas import Status
from layerbench.service.web.settings import KEY_VARIABLE, Settings, settings_of
from layerbench.service.web.store_opening import opened
from layerbench.service.web.structure_process import StructureProcess
from layerbench.service.web.viewer_routes import SAFE, page, viewer

ROUTES = ("estimate-resource", "estimate-training-time", "estimate-inference-time")

DESCRIPTION = """How much memory a vision model needs and how long it takes, **measured** on this
machine in a process of its own, once for each question, and remembered.

The same question asked again, also with other `dataset_size` and `epochs`, is answered from the
store; `refresh=true` measures again. `Prefer: respond-async` gives a job to ask for in place of a
wait. With `device`, such as `rtx4090`, the same is **predicted** for a GPU that is not here, at
once."""


def create_app(
    settings: Settings | None = None,
    database: Database | None = None,
    refused: Callable[[str], object] | None = None,
) -> FastAPI:
    """The application of some settings; of those of the surroundings if none are given.

    Args:
        settings: of the server.
        database: its store; opened for as long as it runs if none is given.
        refused: hears why nothing can be measured with these settings, if that turns out.

    Raises:
        ValueError: it would listen to other machines without an API key.
    """
    settings = settings or Settings()
    if not settings.loopback and settings.api_key is None:
        raise ValueError(
            f"{settings.host} can be reached from other machines, which takes an API key: set "
            f"{KEY_VARIABLE}"
        )
    configure_log()
    app = _Service(
        title="layerbench",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_life,
        # The documentation is a page of our own, which loads nothing from other machines.
        docs_url=None,
        redoc_url=None,
        # What every route may answer, in the words of `Problem`.
        responses={status: PROBLEMS[status] for status in (401, 403, 411, 413)},
    )
    app.state.settings, app.state.metrics = settings, Metrics()
    app.state.given, app.state.refused = database, refused
    for router in _routers():
        app.include_router(router)
    app.add_middleware(RequestMiddleware, settings=settings, metrics=app.state.metrics)
    app.add_exception_handler(RequestValidationError, _invalid_question)
    app.add_exception_handler(StoreError, _no_store)
    app.add_exception_handler(405, _not_that_method)
    for kind in REFUSALS:
        app.add_exception_handler(kind, refusal)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    own: Database | None = app.state.given
    # Whoever made the application may hold the store already.
    held = opened(settings.database) if own is None else nullcontext(own)
    with held as database:
        architect = StructureProcess(settings)
        catalog = Catalog(architect, app.state.refused)
        agent = None if settings.cluster is None else ClusterAgent(settings.cluster, settings.agent)
        jobs = Jobs(settings, database, catalog, app.state.metrics, agent)
        if agent is not None:
            agent.changed = jobs.devices_changed
        app.state.agent = agent
        app.state.database, app.state.jobs, app.state.catalog = database, jobs, catalog
        app.state.architect, app.state.documents = architect, Documents()
        app.state.predictions = Predictions(architect, catalog, database)
        app.state.records = Records(settings)
        app.state.health = Health(jobs, database, catalog)
        with _hanging_up_ends():
            try:
                catalog.begin()
                await _refuse_without_device(settings, catalog)
                await jobs.begin()
                yield
            finally:
                await catalog.stop()
                await architect.stop()
                await app.state.records.stop()
                await jobs.stop()
                # Whoever opened it may be ended by a signal before closing it.
                database.close()
                drain_log()


async def _refuse_without_device(settings: Settings, catalog: Catalog) -> None:
    """Begin only where the device that is named can be had, which takes a moment to know.

    Raises:
        UsageError: it cannot.
    """
    if settings.device_may_be_missing and (reason := await catalog.refusal()):
        raise UsageError(reason)


@contextmanager
def _hanging_up_ends() -> Iterator[None]:
    """Let SIGHUP end the server as SIGTERM does, unless it is ignored, as under nohup."""
    loop = asyncio.get_running_loop()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    try:
        if not ignored:
            loop.add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)
    except (RuntimeError, ValueError):
        # Not the main thread, whose signals are another's.
        ignored = True
    try:
        yield
    finally:
        if not ignored:
            loop.remove_signal_handler(signal.SIGHUP)


# --- what goes wrong -------------------------------------------------------------------------


def _invalid_question(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    if where == "device" and first.get("ctx", {}).get("pattern") == CARD:
        return problem(
            422,
            "device: a card's name is asked for, and no file is read over HTTP: "
            f"GET {PREFIX}/server lists the cards",
        )
    return problem(422, f"{where}: {first['msg']}" if where else str(first["msg"]))


def _no_store(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreDamaged):
        request.app.state.health.suspect()
    return problem(503, f"the store cannot be read or written: {error}", **RETRY)


def _routers() -> tuple[APIRouter, ...]:
    return api, viewer, healthy, observed, page


async def _not_that_method(request: Request, _: Exception) -> Response:
    """Starlette names the methods of one route, where one address may have several."""
    methods = {
        method
        for router in (*_routers(), request.app)
        for route in router.routes
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"])
        for method in route.methods or ()
    }
    return problem(405, "no such method here", Allow=", ".join(sorted(methods)))


# --- questions -------------------------------------------------------------------------------


def _example(route: str) -> dict[str, Any]:
    """A real answer, as examples/service/service.sh got it."""
    place = resources.files("layerbench.service").joinpath(f"examples/{route}.json")
    example: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return example


class _Service(FastAPI):
    """With real answers in its document, and one line on why it does not start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's life."""

        async def told(message: Message) -> None:
            error = sys.exc_info()[1]
            if message["type"] == "lifespan.startup.failed" and isinstance(error, UsageError):
                message = {**message, "message": str(error)}
            await send(message)

        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, told)
        finally:
            drain_log()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; FastAPI itself leaves null out of examples."""
        document = super().openapi()
        for route in ROUTES:
            answer = document["paths"][f"{api.prefix}/{route}"]["post"]["responses"]["200"]
            answer["content"]["application/json"]["example"] = _example(route)
        return document


# --- health and metrics ----------------------------------------------------------------------

healthy = APIRouter(prefix="/health")
observed = APIRouter()


@healthy.get("/live", operation_id="live")
async def live() -> Status:
    """Whether the server answers."""
    return Status(status="live")


@healthy.get("/ready", responses=problems(503), operation_id="ready")
async def ready(health: HealthOf) -> Status:
    """Whether it could measure now."""
    wrong = await health.complaint()
    if wrong is not None:
        raise HTTPException(503, wrong)
    return Status(status="ready")


@observed.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The documentation."""
    text, headers = (
        _reference(request.app),
        {**SAFE, "Content-Security-Policy": api_reference.POLICY},
    )
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@functools.lru_cache(maxsize=1)
def _reference(app: FastAPI) -> bytes:
    return api_reference.page(app.openapi()).encode()


@observed.get("/metrics", operation_id="metrics", response_class=Response, responses={
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
})  # fmt: skip
async def metrics(counters: MetricsOf) -> Response:
    """Counters in Prometheus's text format."""
    return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """``app`` is made when it is asked for: who only imports this file needs no settings."""
    if name == "app":
        try:
            return create_app(settings_of())
        except (UsageError, ValueError) as error:
            sys.exit(f"error: {error}")
    raise AttributeError(name)
