"""The service in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.paths import ROOT


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def server(
    tmp_path: Path,
    lines: list[str] | None = None,
    descriptors: int | None = None,
    *,
    log: Path | None = None,
    database: str | None = None,
    **variables: str,
) -> Iterator[tuple[subprocess.Popen, str]]:
    """``layerbench serve`` in a process of its own, with so many descriptors, and its address.

    Its log goes to a file, or else line by line to a thread of this process. Its database is a file
    in the folder, if none is named.
    """
    few = [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', ""]
    output = None if log is None else log.open("w")
    process = subprocess.Popen(
        [
            *few,
            sys.executable, "-m", "layerbench", "serve", "--port", "0",
            "--database", database or str(tmp_path / "service.db"),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LAYERBENCH_SERVE_CHILD": "tests.support.service_child",
            "LAYERBENCH_SERVE_LOCKS": str(tmp_path),
            **variables,
        },
        stderr=output or subprocess.PIPE,
        text=True,
    )  # fmt: skip
    lines = [] if lines is None else lines
    reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reading.start()
    try:
        until(lambda: process.poll() is not None or ports(process))
        assert process.poll() is None, lines
        yield process, f"http://127.0.0.1:{ports(process)[0]}"
    finally:
        process.kill()
        process.wait()
        reading.join(timeout=5)
        if output is not None:
            output.close()


def ports(process: subprocess.Popen) -> list[int]:
    try:
        found = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return []
    return [connection.laddr.port for connection in found if connection.status == "LISTEN"]
