"""``layerbench serve``: the estimation service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.cli._generated import fields
from layerbench.errors import UsageError
from layerbench.service.web.options import ServiceOptions

if TYPE_CHECKING:
    from layerbench.service.web.settings import Settings

NAME = "serve"

# uvicorn's own exit status for that.
NOT_STARTED = 3


def command(
    options: Annotated[
        ServiceOptions,
        fields(
            "host",
            "port",
            "database",
            "device",
            "cluster",
            "seconds",
            "deadline",
            "queue",
            "memory",
        ),
    ],
) -> None:
    """Answer over HTTP what a model will need before it runs.

    LAYERBENCH_SERVE_API_KEY holds the key that requests must carry in X-API-Key.
    """
    serve_app(**options.model_dump(exclude_unset=True))


def serve_app(on_listening: Callable[[str], object] | None = None, **settings: Any) -> None:  # noqa: ANN401
    """Serve with these settings until asked to end.

    Args:
        on_listening: gets the address once it is listened at.
        settings: fields of `layerbench.service.web.settings.Settings`.

    Raises:
        UsageError: the settings make no sense.
        typer.Exit: it could not begin.
    """
    from layerbench.service.web.settings import settings_of

    _serve(settings_of(**settings), on_listening)


def _serve(settings: Settings, on_listening: Callable[[str], object] | None) -> None:
    from layerbench.service.web.app import create_app
    from layerbench.service.web.server import Running
    from layerbench.service.web.store_opening import opened

    running = Running(settings, on_listening)
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
