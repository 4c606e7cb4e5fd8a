"""What every request goes through: a number, the limits, the key, a line in the log and a count.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import re
import time
import uuid
from ipaddress import ip_address

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerbench.service.web.metrics import Metrics
from layerbench.service.web.settings import KEY_VARIABLE, LOOPBACK, Settings

log = structlog.get_logger("layerbench.service")

MOST_NUMBER = 64
RETRY_S = 5
BODY = ("POST", "PUT", "PATCH")
METHODS = ("DELETE", "GET", "HEAD", "POST")
# What a browser asks for before it can send a key: the page, which holds no figures.
PAGE, FILES = "/", "/static/"
READING = ("GET", "HEAD")
# Characters of a method that are worth writing down.
MOST_METHOD = 16
UNMATCHED = "unmatched"
# Counted as this: who left before there was a whole request.
GONE = 499
# A name or an address, and nothing after the port.
HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")


class RequestMiddleware:
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
        status, begun = 500, False

        async def noted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = number
            await send(message)

        with structlog.contextvars.bound_contextvars(request=number):
            try:
                app = self._refusal(scope, headers) or await self._with_body(headers, receive)
                if app is None:
                    status = GONE
                else:
                    await app(scope, receive, noted)
            except asyncio.CancelledError:
                # The server ends, and waits for nobody any more.
                if begun:
                    await send({"type": "http.response.body", "body": b""})
                else:
                    await _unavailable("the server is ending: ask again")(scope, receive, noted)
            finally:
                self._note(scope, status, time.perf_counter() - begins)

    async def _with_body(self, headers: Headers, receive: Receive) -> ASGIApp | None:
        """The application with the whole body; ``None`` where the client left before it was there.

        Nothing else is done for who has not yet asked.
        """
        if headers.get("content-length", "0") == "0":
            return self._app
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def heard() -> Message:
                return whole.pop() if whole else await receive()

            await self._app(scope, heard, send)

        return app

    def _note(self, scope: Scope, status: int, took: float) -> None:
        method = scope["method"]
        route = getattr(scope.get("route"), "path", UNMATCHED)
        # A client may make up methods; each would be counted for ever.
        method_label = method if method in METHODS else "other"
        self._metrics.requests.labels(route, method_label, status).inc()
        self._metrics.request_s.labels(route).observe(took)
        # Who left before anything could be answered is counted, and not worth a line. One page is
        # some twenty files, of which nobody wants to read unless one fails.
        if status == GONE:
            return
        if status != http.HTTPStatus.OK or not _of_page(scope):
            log.info(
                "request",
                method=method[:MOST_METHOD],
                route=route,
                status=status,
                seconds=round(took, 6),
            )

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        key = self._settings.api_key
        if key is None:
            if not _from_here(scope, headers):
                return _problem(403, f"only this machine is answered: {KEY_VARIABLE} is not set")
        elif not _of_page(scope) and not hmac.compare_digest(
            headers.get("x-api-key", "").encode("latin-1"), key.get_secret_value().encode()
        ):
            return _problem(401, "send the API key as X-API-Key")
        return self._too_long(scope, headers)

    def _too_long(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        length = headers.get("content-length")
        # Of both headers, servers believe the one that says nothing about the length.
        if "transfer-encoding" in headers or (length is None and scope["method"] in BODY):
            return _problem(411, "say how long the body is: Content-Length")
        if length is None:
            return None
        if not length.isdecimal() or int(length) > self._settings.most_body:
            return _problem(413, f"the body may have {self._settings.most_body} bytes")
        return None


def _of_page(scope: Scope) -> bool:
    """Whether a request is for the page, or for one of its files."""
    path = scope["path"]
    return scope["method"] in READING and (path == PAGE or path.startswith(FILES))


def _number(headers: Headers) -> str:
    header = headers.get("x-request-id", "")
    fits = 0 < len(header) <= MOST_NUMBER and header.isascii() and header.isprintable()
    return header if fits else uuid.uuid4().hex


def _from_here(scope: Scope, headers: Headers) -> bool:
    """Whether a request came in at a loopback address, and meant it.

    A page of a foreign host that a browser was made to take for this one says that host's name.
    """
    address = (scope.get("server") or ("", None))[0]
    return _loopback(address) and _loopback(_host(headers.get("host", "")))


def _host(header: str) -> str:
    """A host without its port, as in ``[::1]:8000`` or ``localhost:8000``; empty if invalid."""
    match = HOST.fullmatch(header.lower())
    return "" if match is None else match["six"] or match["name"]


def _loopback(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(status: int, detail: str) -> ASGIApp:
    return JSONResponse({"detail": detail}, status)


def _unavailable(detail: str) -> ASGIApp:
    return JSONResponse({"detail": detail}, 503, {"Retry-After": str(RETRY_S)})
