"""Questions in a table, asked one after the other. Loads no torch."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tabulate import tabulate

from layerbench import units
from layerbench.errors import TRUTHS, DataError, ServiceError, UsageError
from layerbench.profilers.progress import Progress
from layerbench.records.bounds import Amount
from layerbench.service.web.settings import KEY_VARIABLE
from layerbench.text import one_line

ROUTES = ("estimate-resource", "estimate-training-time", "estimate-inference-time")
ROUTE = "route"
DEVICE = "device"
# A method of figures, as the service calls it.
PREDICTED = "predicted"
NUMBERS = ("parameters", "dataset_size", "batch_size", "epochs")
OK, ACCEPTED = 200, 202
LOOK_S = 1.0
MOST_BYTES = 4 * 2**20
"""Of an answer; one of the service's has some thousand."""
# Characters of what a server says that are repeated.
MOST_SAID = 300


@dataclass(frozen=True)
class Case:
    """One question, and the route that it goes to."""

    route: str
    question: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A reply: the answer's body or an error, and the seconds that it took."""

    case: Case
    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.status == OK


def read_cases(path: Path) -> list[Case]:
    """The questions of a CSV file; an empty cell leaves a field out.

    Raises:
        DataError: it cannot be read, or has no questions.
        UsageError: a cell makes no sense; the message has its line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not rows:
        raise DataError(f"{path} has no questions: a line with names of columns, then one each")
    return [_case(row, f"{path}, line {number}") for number, row in enumerate(rows, start=2)]


def _case(row: dict[str | None, Any], where: str) -> Case:
    if None in row:
        raise UsageError(f"{where}: more cells than names of columns")
    cells = {name: cell.strip() for name, cell in row.items() if name and cell and cell.strip()}
    route = cells.pop(ROUTE, ROUTES[0])
    if route not in ROUTES:
        raise UsageError(f"{where}: {ROUTE} takes {', '.join(ROUTES)}, got {route!r}")
    return Case(route, {name: _value(name, cell, where) for name, cell in cells.items()})


def _value(name: str, cell: str, where: str) -> Any:  # noqa: ANN401 - a field of any type
    try:
        if name in NUMBERS:
            return int(cell)
        if name == "image_size":
            height, width = cell.lower().split("x")
            return [int(height), int(width)]
        if name == "threading":
            return TRUTHS[cell.lower()]
    except (ValueError, KeyError):
        raise UsageError(f"{where}: {name} cannot be {one_line(repr(cell), MOST_SAID)}") from None
    return cell


def ask(
    cases: Sequence[Case], url: str, *, timeout: float, refresh: bool, progress: Progress
) -> list[Outcome]:
    """What a service says to each question.

    Raises:
        ServiceError: it cannot be reached, answers too late, or answers as no such service does.
        UsageError: no such address, or no such timeout.
    """
    if not 0 < timeout < math.inf:
        raise UsageError(f"--timeout takes seconds above 0, got {timeout}")
    key = os.environ.get(KEY_VARIABLE)
    # Compressed, a small answer could be of any size.
    # Each request has a connection of its own, which is ended with its time.
    headers = {"Accept-Encoding": "identity", "Connection": "close"} | (
        {} if key is None else {"X-API-Key": key}
    )
    outcomes = []
    try:
        client = httpx.Client(base_url=url, timeout=timeout, headers=headers, trust_env=False)
    except (httpx.InvalidURL, ValueError) as error:
        raise UsageError(f"--url {one_line(url, MOST_SAID)} is not an address: {error}") from error
    with client:
        for number, case in enumerate(cases):
            progress.step(str(case.question.get("architecture", case.route)), number, len(cases))
            outcomes.append(_ask(client, case, refresh))
    return outcomes


def _ask(client: httpx.Client, case: Case, refresh: bool) -> Outcome:
    begins = time.perf_counter()
    ends = begins + float(client.timeout.read or 0)
    try:
        status, body = _answer(client, case, refresh, ends)
    except httpx.TimeoutException as error:
        raise ServiceError(
            f"no answer from {client.base_url} in time: raise --timeout "
            f"({one_line(error, MOST_SAID)})"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServiceError(
            f"no service answers at {client.base_url} ({one_line(error, MOST_SAID)}): start one "
            "with layerbench serve, or give its --url"
        ) from error
    return Outcome(case, status, body, time.perf_counter() - begins)


def _answer(
    client: httpx.Client, case: Case, refresh: bool, ends: float
) -> tuple[int, dict[str, Any]]:
    """The status and the body that an answer has in the end.

    Raises:
        httpx.HTTPError, ValueError: there is none, or not such a one.
    """
    route = f"/api/v1/{case.route}"
    more: dict[str, Any] = {"json": case.question, "params": {"refresh": refresh}}
    answer = _sent(client, "POST", route, ends, more)
    while answer.status == ACCEPTED:
        # The service gave up waiting, and its measurement goes on.
        _until_ended(client, answer.location, ends)
        answer = _sent(client, "POST", route, ends, {"json": case.question})
    body = _object(answer.body)
    return answer.status, _figures_of(body) if answer.status == OK else body


@dataclass(frozen=True)
class _Sent:
    """What came back, as it is."""

    status: int
    location: str
    body: bytes


def _sent(
    client: httpx.Client, method: str, place: str, ends: float, more: dict[str, Any]
) -> _Sent:
    """Send a request and read what comes back, as long as it may take and be.

    Raises:
        httpx.HTTPError: nothing came, or too late.
        ValueError: it is too long.
    """
    with (
        _cut_off(ends) as trace,
        client.stream(method, place, extensions={"trace": trace}, **more) as answer,
    ):
        body = b""
        for part in answer.iter_bytes():
            body += part
            if len(body) > MOST_BYTES:
                raise ValueError(f"an answer longer than {units.bytes_(MOST_BYTES)}")
            _check_time(ends)
        return _Sent(answer.status_code, answer.headers.get("Location", ""), body)


@contextlib.contextmanager
def _cut_off(ends: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Hears where a request is sent, and ends that connection when its time is over.

    A time-out of httpx begins anew with each byte, also of a header that never ends.
    """
    opened: list[socket.socket] = []

    def cut() -> None:
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def trace(event: str, details: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            opened.append(details["return_value"].get_extra_info("socket"))

    timer = threading.Timer(min(max(0.0, ends - time.perf_counter()), threading.TIMEOUT_MAX), cut)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    except (httpx.HTTPError, ValueError):
        _check_time(ends)
        raise
    finally:
        timer.cancel()


def _check_time(ends: float) -> None:
    if time.perf_counter() > ends:
        raise httpx.ReadTimeout("the measurement still runs")


def _until_ended(client: httpx.Client, job: str, ends: float) -> None:
    # A key goes to no other place than the one that the user named.
    if not job.startswith("/") or job.startswith("//"):
        raise ValueError(f"it names no job to wait for: {job!r}")
    while _state(_sent(client, "GET", job, ends, {})) in ("queued", "running"):
        _check_time(ends)
        time.sleep(LOOK_S)
    _check_time(ends)


def _state(answer: _Sent) -> object:
    if answer.status != OK:
        raise ValueError(f"it says {answer.status} of the job that it began")
    return _object(answer.body).get("state")


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except RecursionError as error:
        raise ValueError("its answer is nested too deep") from error
    if not isinstance(answer, dict):
        raise ValueError("its answer is not a JSON object")
    return answer


_Quantity = Amount | None
_Label = Annotated[str, Field(max_length=MOST_SAID)]


class _About(BaseModel):
    """Of all that is said, whether it was known before, and how each figure was had."""

    stored: bool
    method: dict[_Label, _Label] = {}

    @property
    def source(self) -> str:
        """Where the answer is from, in a word."""
        if self.stored:
            return "store"
        return "prediction" if PREDICTED in self.method.values() else "measurement"


class _Answer(BaseModel):
    """An answer: figures, some of them below a name; and how they came about."""

    model_config = ConfigDict(extra="allow")
    # What else is there is a figure.
    __pydantic_extra__: dict[_Label, _Quantity | dict[_Label, _Quantity]]

    about: _About


def _figures_of(body: dict[str, Any]) -> dict[str, Any]:
    """The figures, and ``about``."""
    try:
        answer = _Answer.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"its answer is none: {place}: {first['msg']}") from None
    return {**(answer.__pydantic_extra__ or {}), "about": {"from": answer.about.source}}


def table(outcomes: Sequence[Outcome]) -> str:
    """Questions and answers beside each other; with devices where a question names one."""
    named = any(DEVICE in outcome.case.question for outcome in outcomes)
    rows = [
        [*_question_cells(outcome.case, named), *_answer_cells(outcome)] for outcome in outcomes
    ]
    device = [DEVICE] if named else []
    columns = ["architecture", "for", "batch", "image", *device, "answer", "from", "took"]
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True)


def _question_cells(case: Case, with_device: bool) -> Iterator[str]:
    question = case.question
    yield one_line(question.get("architecture", ""))
    yield one_line(question.get("application_type", "training"))
    yield str(question.get("batch_size", ""))
    yield "x".join(map(str, question.get("image_size", ())))
    if with_device:
        yield one_line(question.get(DEVICE, ""))


def _answer_cells(outcome: Outcome) -> Iterator[str]:
    if outcome.answered:
        figures = {name: value for name, value in outcome.body.items() if name != "about"}
        yield "\n".join(_lines(figures))
        yield str(outcome.body["about"]["from"])
    else:
        detail = outcome.body.get("detail", outcome.body)
        yield f"{outcome.status}: {one_line(detail, MOST_SAID)}"
        yield ""
    yield units.duration(outcome.seconds)


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from (
                f"{one_line(inner)} {_quantity(inner, part)}" for inner, part in value.items()
            )
        else:
            yield f"{one_line(name)} {_quantity(name, value)}"


def _quantity(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if "Memory" in name or name.endswith("before training"):
        return units.bytes_(value)
    if "Utilization" in name:
        return f"{value:.0%}"
    if "Time" in name or name.endswith("_pass"):
        return units.duration(value)
    return f"{value:g}"
