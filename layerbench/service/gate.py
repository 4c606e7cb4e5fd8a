"""What every request goes through: a number, the limits, the key, a line in the log and a count.

Loads no torch.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import sys
import time
import uuid
from ipaddress import ip_address

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerbench.service.metrics import Metrics
from layerbench.service.settings import KEY_VARIABLE, LOOPBACK, Settings

log = structlog.get_logger("layerbench.service")

MOST_NUMBER = 64
BODY = ("POST", "PUT", "PATCH")
UNMATCHED = "unmatched"


class Gate:
    """Around an application.

    Args:
        app: the application.
        settings: of the server.
        metrics: that are counted.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begins = time.perf_counter()
        headers = Headers(scope=scope)
        number = _number(headers)
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = number
            await send(message)

        with structlog.contextvars.bound_contextvars(request=number):
            try:
                refused = self._refusal(scope, headers)
                await (refused or self._app)(scope, receive, noted)
            finally:
                self._note(scope, status, time.perf_counter() - begins)

    def _note(self, scope: Scope, status: int, took: float) -> None:
        method = scope["method"]
        route = getattr(scope.get("route"), "path", UNMATCHED)
        # A client may make up methods; each would be counted for ever.
        known = method if route != UNMATCHED else "any"
        self._metrics.requests.labels(route, known, status).inc()
        self._metrics.request_s.labels(route).observe(took)
        log.info("request", method=method, route=route, status=status, seconds=round(took, 6))

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        key = self._settings.api_key
        if key is None:
            if not _from_here(scope, headers):
                return _said(403, f"only this machine is answered: {KEY_VARIABLE} is not set")
        elif not hmac.compare_digest(
            headers.get("x-api-key", "").encode(), key.get_secret_value().encode()
        ):
            return _said(401, "send the API key as X-API-Key")
        return self._too_long(scope, headers)

    def _too_long(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        length = headers.get("content-length")
        if length is None:
            if scope["method"] in BODY or "transfer-encoding" in headers:
                return _said(411, "say how long the body is: Content-Length")
        elif not length.isdecimal() or int(length) > self._settings.most_body:
            return _said(413, f"the body may have {self._settings.most_body} bytes")
        return None


def _number(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    fits = 0 < len(given) <= MOST_NUMBER and given.isascii() and given.isprintable()
    return given if fits else uuid.uuid4().hex


def _from_here(scope: Scope, headers: Headers) -> bool:
    """Whether a request came in at a loopback address, and meant it.

    A page of a foreign host that a browser was made to take for this one says that host's name.
    """
    address = (scope.get("server") or ("", None))[0]
    return _loopback(address) and _loopback(_host(headers.get("host", "")))


def _host(header: str) -> str:
    """Without the port: ``[::1]:8000`` and ``localhost:8000`` have one."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _loopback(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _said(status: int, detail: str) -> ASGIApp:
    return JSONResponse({"detail": detail}, status)


def configure_log() -> None:
    """One JSON object a line, to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_StandardError,
    )


class _StandardError:
    """Where lines go. One that cannot be written is lost: nobody shall wait or fail for it."""

    def __init__(self, *_: object) -> None:
        pass

    def info(self, line: str) -> None:
        """Write a line."""
        # A pipe whose reader is gone, a full disk, a closed file.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    warning = error = exception = info
