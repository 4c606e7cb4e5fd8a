"""``layerbench devices``: the GPUs that predictions can be made for without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.records.options import OUTCOME, option

NAME = "devices"


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One of them, such as rtx4090, or its FILE.toml."),
    ] = None,
    *,
    describe: Annotated[
        bool,
        option("Describe the GPU of this machine as a FILE.toml, which --device of others takes."),
    ] = False,
    format: Annotated[
        str | None,
        option("txt, csv, md, html or json.", panel=OUTCOME, metavar="NAME", default_text="txt"),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "Where to write it; without it to the terminal.",
            "--out",
            "-o",
            panel=OUTCOME,
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """List the GPUs that memory and time can be predicted for, and how well this was checked.

    Of one it shows all figures and their sources. --describe writes such figures on a machine that
    has the GPU.
    """
    from layerbench import reporters
    from layerbench.errors import UsageError
    from layerbench.store import writing

    if describe and (name is not None or format is not None):
        raise UsageError("--describe writes the GPU of this machine as TOML: leave out the others")
    if out is not None:
        writing.check_writable(out.parent)
    if describe:
        from layerbench.environment.cards import present

        text = present.toml(present.present())
    else:
        reporters.check(format or "txt", profile=False)
        from layerbench.api.devices import devices

        text = reporters.render(format or "txt", devices(name))
    if out is None:
        _options.say(text)
    else:
        writing.write_text(out, text)
        typer.echo(str(out))
