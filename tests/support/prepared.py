"""Processes of their own that need not load torch first: forks of one that has.

To load torch, and what an optimizer needs of it, takes longer than what most tests let such a
process do. Of what they inherit nothing has run.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tests.support.paths import ROOT

LOADED = [
    "torch._dynamo",
    "layerbench.cli.timer",
    "layerbench.cli.train",
    "layerbench.api.memory",
    "layerbench.api.sweep",
    "layerbench.api.timing",
    "layerbench.plots",
    "layerbench.training.classification.run",
]
NOWHERE = Path(os.devnull)


@cache
def forks() -> ForkServerContext:
    """What starts a process of ours by forking one that has loaded what is in `LOADED`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def start_script(
    script: str,
    *arguments: str,
    out: Path = NOWHERE,
    err: Path = NOWHERE,
    **variables: str,
) -> ForkServerProcess:
    """Start ``python SCRIPT ...`` or ``python -m MODULE ...`` in the checkout.

    Args:
        script: one of the checkout's, or ``-m``: then the first argument is the module's name.
        arguments: of its command line.
        out, err: what stdout and stderr are added to: a file or a terminal.
        variables: of the environment, besides this process's.
    """
    environment = {**os.environ, **variables}
    process = forks().Process(
        target=_run, args=(script, arguments, environment, (out, err)), daemon=True
    )
    process.start()
    return process


def _run(
    script: str, arguments: tuple[str, ...], environment: dict[str, str], streams: tuple[Path, Path]
) -> None:
    """In the new process."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(streams, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY)
        os.dup2(opened, descriptor)
        os.close(opened)
    # As a fresh process has them: those of the one that was forked know another file.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    # What torch consists of need not be looked through at each collection.
    gc.freeze()
    # Where the tests run in the background, an interrupt would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if script == "-m":
        name, *words = arguments
        sys.argv = [name, *words]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return
    sys.argv = [script, *arguments]
    runpy.run_path(str(ROOT / script), run_name="__main__")
