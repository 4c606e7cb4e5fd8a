"""``layerbench cluster``: what a Ray cluster has to measure on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _endings, _options, _output

NAME = "cluster"


def command(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="The cluster: auto, HOST:6379, or ray://HOST:10001."
        ),
    ] = "auto",
    *,
    out: Annotated[Path | None, _options.out("DIR/cluster.*")] = None,
    formats: _options.Formats = None,
) -> None:
    """List the nodes of a Ray cluster: devices, versions, and which of them agree.

    Figures of nodes with different versions of PyTorch stand in different columns. A node with
    another layerbench, or without one, measures nothing.
    """
    names = _options.checked_formats(formats, out)

    from layerbench.cluster.connection import connected
    from layerbench.cluster.nodes import listed

    with connected(address) as ray:
        record = listed(ray, address, _output.complain)
    _options.deliver(record, names, out)
    if all(node.problem for node in record.nodes):
        raise typer.Exit(_endings.FAILED)
