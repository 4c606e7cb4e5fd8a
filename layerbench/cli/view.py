"""``layerbench view``: look at models and at what they took, in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from layerbench.cli._generated import fields
from layerbench.cli.serve import serve_app
from layerbench.errors import UsageError
from layerbench.records.options import option
from layerbench.service.web.options import LISTENING, ServiceOptions

NAME = "view"

# Of the service's options.
SERVED = ("host", "port", "database", "device")
# Without one of them a browser on Linux is one in the terminal.
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


def command(
    records: Annotated[
        list[Path] | None, typer.Argument(help="Records, and folders of records, such as stats/.")
    ] = None,
    *,
    model: Annotated[
        str | None,
        option(
            "The page opens on it; also one of your own: package.module:callable or "
            "path/to/file.py:callable.",
            metavar="SPEC",
        ),
    ] = None,
    options: Annotated[ServiceOptions, fields(*SERVED, port=5000)],
    open: Annotated[
        bool, option("Open the page in a browser.", "--open/--no-open", panel=LISTENING)
    ] = True,
) -> None:
    """Show models layer by layer in a browser, measure them, and look at records.

    LAYERBENCH_SERVE_API_KEY holds the key that requests must carry in X-API-Key.
    """
    places = tuple(records or ())
    for place in places:
        if not place.exists():
            raise UsageError(f"there is no {place}: name records, or folders of records")

    def show(address: str) -> None:
        page = address if model is None else f"{address}#model={quote(model, safe='')}"
        typer.echo(page)
        if open and _has_screen():
            webbrowser.open(page)

    # Of these the environment of `serve` decides none.
    served = options.model_dump(include=set(SERVED))
    serve_app(show, **served, records=places, specs=() if model is None else (model,))


def _has_screen() -> bool:
    return sys.platform != "linux" or any(os.environ.get(name) for name in SCREENS)
