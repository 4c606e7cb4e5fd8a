"""Questions in a table, asked one after the other. Loads no torch."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tabulate import tabulate

from layerbench import units
from layerbench.errors import DataError, ServiceError, UsageError
from layerbench.progress import Progress
from layerbench.service.settings import KEY_VARIABLE

ROUTES = ("estimate-resource", "estimate-training-time", "estimate-inference-time")
ROUTE = "route"
NUMBERS = ("parameters", "dataset_size", "batch_size", "epochs")
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
OK, ACCEPTED = 200, 202
LOOK_S = 1.0


@dataclass(frozen=True)
class Case:
    """One question, and the route that it goes to."""

    route: str
    question: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What came back: the answer's body, or what is wrong, and the seconds that it took."""

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
        UsageError: a cell cannot be meant; the message has its line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not rows:
        raise DataError(f"{path} has no questions: a line with names of columns, then one each")
    return [_case(row, f"{path}, line {number}") for number, row in enumerate(rows, start=2)]


def _case(row: dict[str | None, Any], where: str) -> Case:
    if None in row:
        raise UsageError(f"{where}: more cells than names of columns")
    given = {name: cell.strip() for name, cell in row.items() if name and cell and cell.strip()}
    route = given.pop(ROUTE, ROUTES[0])
    if route not in ROUTES:
        raise UsageError(f"{where}: {ROUTE} takes {', '.join(ROUTES)}, got {route!r}")
    return Case(route, {name: _value(name, cell, where) for name, cell in given.items()})


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
        raise UsageError(f"{where}: {name} cannot be {cell!r}") from None
    return cell


def asked(
    cases: Sequence[Case], url: str, *, timeout: float, refresh: bool, progress: Progress
) -> list[Outcome]:
    """What a service says to each question.

    Raises:
        ServiceError: it cannot be reached, or answers too late.
    """
    key = os.environ.get(KEY_VARIABLE)
    headers = {} if key is None else {"X-API-Key": key}
    found = []
    with httpx.Client(base_url=url, timeout=timeout, headers=headers, trust_env=False) as client:
        for number, case in enumerate(cases):
            progress.step(str(case.question.get("architecture", case.route)), number, len(cases))
            found.append(_asked(client, case, refresh))
    return found


def _asked(client: httpx.Client, case: Case, refresh: bool) -> Outcome:
    begins = time.perf_counter()
    ends = begins + float(client.timeout.read or 0)
    try:
        route = f"/api/v1/{case.route}"
        answer = client.post(route, json=case.question, params={"refresh": refresh})
        while answer.status_code == ACCEPTED:
            # The service gave up waiting, and its measurement goes on.
            _until_ended(client, answer.headers["Location"], ends)
            answer = client.post(route, json=case.question)
        body = answer.json()
    except httpx.TimeoutException as error:
        raise ServiceError(
            f"no answer from {client.base_url} in time: raise --timeout ({error})"
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            f"no service answers at {client.base_url} ({error}): start one with layerbench serve, "
            "or give its --url"
        ) from error
    return Outcome(case, answer.status_code, body, time.perf_counter() - begins)


def _until_ended(client: httpx.Client, job: str, ends: float) -> None:
    while client.get(job).raise_for_status().json()["state"] in ("queued", "running"):
        if time.perf_counter() > ends:
            raise httpx.ReadTimeout("the measurement still runs")
        time.sleep(LOOK_S)


def table(outcomes: Sequence[Outcome]) -> str:
    """Questions and answers beside each other."""
    rows = [[*_asked_for(outcome.case), *_said(outcome)] for outcome in outcomes]
    columns = ["architecture", "for", "batch", "image", "answer", "from", "took"]
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True)


def _asked_for(case: Case) -> Iterator[str]:
    question = case.question
    yield str(question.get("architecture", ""))
    yield str(question.get("application_type", "training"))
    yield str(question.get("batch_size", ""))
    yield "x".join(map(str, question.get("image_size", ())))


def _said(outcome: Outcome) -> Iterator[str]:
    if outcome.answered:
        told = {name: value for name, value in outcome.body.items() if name != "about"}
        yield "\n".join(_lines(told))
        yield "store" if outcome.body["about"]["stored"] else "measurement"
    else:
        yield f"{outcome.status}: {outcome.body.get('detail', outcome.body)}"
        yield ""
    yield units.duration(outcome.seconds)


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for name, value in told.items():
        if isinstance(value, dict):
            yield from (f"{inner} {_quantity(inner, found)}" for inner, found in value.items())
        else:
            yield f"{name} {_quantity(name, value)}"


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
