"""``layerbench view``: look at models and at what they took, in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from layerbench.cli.serve import LISTENING, Database, Device, Host, Port, serve_app
from layerbench.errors import UsageError

NAME = "view"

# Without one of them a browser on Linux is one in the terminal.
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


def command(
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Records, and folders of records, such as stats/."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="The page opens on it; also one of your own: package.module:callable or "
            "path/to/file.py:callable.",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 5000,
    open: Annotated[
        bool, typer.Option(help="Open the page in a browser.", rich_help_panel=LISTENING)
    ] = True,
    database: Database = Path("layerbench.db"),
    device: Device = None,
) -> None:
    """Show models layer by layer in a browser, measure them, and look at records.

    LAYERBENCH_SERVE_API_KEY holds the key that requests must carry in X-API-Key.
    """
    places = tuple(records or ())
    for place in places:
        if not place.exists():
            raise UsageError(f"there is no {place}: name records, or folders of records")

    def told(address: str) -> None:
        page = address if model is None else f"{address}#model={quote(model, safe='')}"
        typer.echo(page)
        if open and _has_screen():
            webbrowser.open(page)

    serve_app(
        told,
        host=host,
        port=port,
        database=database,
        device=device,
        records=places,
        specs=() if model is None else (model,),
    )


def _has_screen() -> bool:
    return sys.platform != "linux" or any(os.environ.get(name) for name in SCREENS)
