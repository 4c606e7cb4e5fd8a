"""``layerbench client``: a table of questions for the estimation service, and what came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.records.options import option

NAME = "client"


def command(
    *,
    test_cases: Annotated[
        Path,
        option(
            "CSV: a column for each field of a question, image_size as 256x256; `route` is "
            "estimate-resource, estimate-training-time or estimate-inference-time.",
            "--test-cases",
            metavar="FILE",
        ),
    ],
    url: Annotated[str, option("Address of the service.")] = "http://127.0.0.1:8000",
    timeout: Annotated[
        float, option("Seconds to wait for each answer, its measurement included.")
    ] = 900.0,
    refresh: Annotated[bool, option("Measure or predict again, whatever is stored.")] = False,
    quiet: _options.Quiet = False,
) -> None:
    """Send each question of a table to the estimation service.

    Prints each answer and how long it took. Exit status 1 if a question was not answered.
    LAYERBENCH_SERVE_API_KEY holds the service's key, if it takes one.
    """
    from layerbench.cli._progress import shown
    from layerbench.service.client import ask, read_cases, table

    cases = read_cases(test_cases)
    with shown("client", quiet) as progress:
        outcomes = ask(cases, url, timeout=timeout, refresh=refresh, progress=progress)
    typer.echo(table(outcomes))
    if any(not outcome.answered for outcome in outcomes):
        raise typer.Exit(1)
