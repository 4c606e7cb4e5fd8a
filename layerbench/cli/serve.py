"""``layerbench serve``: the estimation service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from layerbench.errors import UsageError

NAME = "serve"

# uvicorn's own exit status for that.
NOT_STARTED = 3

LISTENING = "Where it listens"
MEASURING = "How it measures"
LIMITS = "Limits"

# `view` has them too: it is the same server.
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on; any but a loopback address needs an API key.",
        rich_help_panel=LISTENING,
    ),
]
Port = Annotated[
    int, typer.Option(help="Port to listen on; 0 takes any free one.", rich_help_panel=LISTENING)
]
Database = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Database of jobs and results; made if missing.",
        rich_help_panel=MEASURING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device: cpu, cuda, cuda:1, xpu or mps.",
        show_default="the accelerator if there is one, else cpu",
        rich_help_panel=MEASURING,
    ),
]


def command(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    database: Database = Path("layerbench.db"),
    device: Device = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds that a measurement takes, about; slow models take longer.",
            rich_help_panel=MEASURING,
        ),
    ] = 3.0,
    deadline: Annotated[
        float,
        typer.Option(help="Seconds after which a measurement is ended.", rich_help_panel=LIMITS),
    ] = 900.0,
    queue: Annotated[
        int,
        typer.Option(help="Number of measurements that may wait.", rich_help_panel=LIMITS),
    ] = 32,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory that a measuring process may take, such as 8GiB.",
            show_default="80 % of the host's",
            rich_help_panel=LIMITS,
        ),
    ] = None,
) -> None:
    """Answer over HTTP what a model will need before it runs.

    LAYERBENCH_SERVE_API_KEY holds the key that requests must carry in X-API-Key.
    """
    from layerbench.units import parse_bytes

    serve_app(
        host=host,
        port=port,
        database=database,
        device=device,
        seconds=seconds,
        deadline=deadline,
        queue=queue,
        memory=None if memory is None else parse_bytes(memory),
    )


def serve_app(told: Callable[[str], object] | None = None, **given: Any) -> None:  # noqa: ANN401
    """Serve with these settings until asked to end.

    Args:
        told: hears the address once it is listened at.
        given: fields of `layerbench.service.web.settings.Settings`.

    Raises:
        UsageError: the settings make no sense.
        typer.Exit: it could not begin.
    """
    from layerbench.service.web.settings import settings_of

    _serve(settings_of(**given), told)


def _serve(settings: Any, told: Callable[[str], object] | None) -> None:  # noqa: ANN401 - Settings
    from layerbench.service.web.app import create_app
    from layerbench.service.web.server import Running
    from layerbench.service.web.store_opening import opened

    running = Running(settings, told)
    with opened(settings.database) as database:
        try:
            app = create_app(settings, database, running.refuse)
        except ValueError as error:
            raise UsageError(str(error)) from None
        try:
            began = running.serve(app)
        except SystemExit:
            # uvicorn's way of saying that the application did not start.
            began = False
    if running.refused is not None:
        raise UsageError(running.refused)
    if not began:
        raise typer.Exit(NOT_STARTED)
