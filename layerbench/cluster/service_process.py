"""On a node: a measuring process of the service, and the lines that it says. Loads no torch."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import psutil

from layerbench.cluster.probe import node_variables
from layerbench.environment.device_lock import lock_path

LOOK_S = 0.1
GRACE_S = 3.0
TAIL = 4000
# Of the node's memory, for a measuring process.
HOST_SHARE = 0.8


def lines(order: Mapping[str, Any], *, tick: bool = False) -> Iterator[dict[str, Any]]:
    """Run a module with an order, and give each line that it says, and then its end.

    Args:
        order: ``module``, and ``task``: what it reads from standard input.
        tick: give an empty dictionary, too, whenever nothing was said for a moment.

    Yields:
        ``{"line": text}``, and last ``{"ended": status, "complaint": text}``.
    """
    variables = node_variables()
    task = {
        **order["task"],
        "lock": str(lock_path(order["task"]["device"], variables=variables)),
        "memory_bytes": order["task"]["memory_bytes"]
        or int(HOST_SHARE * psutil.virtual_memory().total),
    }
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", order["module"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=variables,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task).encode() + b"\n")
                process.stdin.flush()
            for line in _said(process):
                if line is not None:
                    yield {"line": line}
                elif tick:
                    yield {}
            status = process.wait()
        finally:
            _end(process)
        complaints.seek(0)
        yield {"ended": status, "complaint": complaints.read()[-TAIL:].decode(errors="replace")}


def _said(process: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """Lines of standard output, until it ends; ``None`` where none came for a moment.

    A cancellation is noticed then.
    """
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK_S):
                yield None
                continue
            chunk = process.stdout.read(65536)
            if not chunk:
                break
            *whole, kept = (kept + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
    if kept:
        yield kept.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End its group, if it has not ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        ends = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < ends:
            time.sleep(LOOK_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()
