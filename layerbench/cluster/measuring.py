"""On a node: one command line of layerbench in a fresh process. Loads no torch.

Ray keeps its worker processes between tasks, and each keeps the fork server that it has begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from layerbench.cluster import sent_files
from layerbench.cluster.probe import node_variables
from layerbench.environment.device_lock import lock_of, lock_path
from layerbench.errors import WorkerError

CPU = "cpu"
PATIENCE_S = 15.0
# The folder that this layerbench is imported from.
HOME = Path(__file__).parents[2]
INSTALLED = ("site-packages", "dist-packages")
PATH = "PYTHONPATH"
# Before a verb and an option's name, as in `layerbench.cli`.
ENVIRONMENT = "LAYERBENCH"
OUTPUT, COMPLAINT = "output", "complaint"
# Loading torch from a cold disk takes long.
LOADING_S = 300.0
# A cancellation is only noticed between two looks.
LOOK_S = 0.1
TO_END_S = 5.0
# Of standard error, for the reason that something failed.
TAIL = 4000


class ForkServer:
    """The process that forks, as its owner sees it.

    Args:
        variables: its environment; what it loads lies on their ``PYTHONPATH``.

    Raises:
        WorkerError: it cannot load what it needs.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "layerbench.cluster.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=variables,
            # A user's file here could have the name of a module that it loads.
            cwd=os.sep,
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        try:
            self._wait_for("loaded", LOADING_S)
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def run(self, order: dict[str, Any]) -> int:
        """Run an order in a child, and wait for its end.

        Returns:
            the child's exit status; negative for a signal.

        Raises:
            WorkerError: the fork server died.
            KeyboardInterrupt: somebody cancelled; the child has ended then.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        child = None
        try:
            child = self._wait_for("begun", LOADING_S)
            return self._wait_for("ended", None)
        except BaseException:
            if child is None or not self._stopped(child):
                # Its child ends with it, and the next order gets a server of its own.
                self.end()
            raise

    def end(self) -> None:
        """End it, and what it runs."""
        self._process.kill()
        self._process.wait()

    def _stopped(self, child: int) -> bool:
        _end_group(child)
        with contextlib.suppress(WorkerError):
            self._wait_for("ended", TO_END_S)
            return True
        return False

    def _wait_for(self, name: str, seconds: float | None) -> int:
        """The value of its next message, which has this name."""
        ends = None if seconds is None else time.monotonic() + seconds
        assert self._process.stdout is not None
        while not self._selector.select(LOOK_S):
            if ends is not None and time.monotonic() > ends:
                raise WorkerError(f"the measuring process said nothing for {seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise WorkerError(f"the measuring process ended: {_last(self._complaints.read())}")
        return int(json.loads(line)[name])


_SERVERS: list[ForkServer] = []


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run an `Order`, as it travels, and give an `Outcome`.

    Raises:
        WorkerError: no process can be begun.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="layerbench-") as name:
        folder = Path(name)
        written = folder / "written"
        words = [*order["words"], "--device", order["device"], "--quiet"]
        words += ["--format", "json"]
        if order["samples"]:
            words += ["--out", str(written)]
        status = _in_child("layerbench", words, folder)
        return {
            "status": status,
            "output": (folder / OUTPUT).read_text(errors="replace"),
            "complaint": _last((folder / COMPLAINT).read_bytes()),
            "files": {
                path.relative_to(written).as_posix(): path.read_bytes()
                for path in sorted(written.rglob("*"))
                if path.is_file()
            },
            "seconds": time.monotonic() - began,
        }


def describe() -> dict[str, Any]:
    """What `layerbench.cluster.description` says of this node.

    Raises:
        WorkerError: it says nothing.
    """
    with tempfile.TemporaryDirectory(prefix="layerbench-") as name:
        folder = Path(name)
        if _in_child("layerbench.cluster.description", [], folder):
            raise WorkerError(_last((folder / COMPLAINT).read_bytes()) or "it gave no reason")
        described: dict[str, Any] = json.loads((folder / OUTPUT).read_text())
        return described


def _in_child(module: str, words: list[str], folder: Path) -> int:
    """Run a module in a fresh process; gives its exit status, negative for a signal."""
    return _server().run(
        {
            "module": module,
            "words": words,
            "variables": _without_options(_variables(), words),
            "folder": sent_files.folder(),
            "output": str(folder / OUTPUT),
            "complaint": str(folder / COMPLAINT),
        }
    )


@contextmanager
def _beside_nothing() -> Iterator[None]:
    """Loading keeps a core busy for seconds: not while something is measured, if that ends soon."""
    lock = lock_of(lock_path(CPU), PATIENCE_S)
    with suppress(OSError, Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _server() -> ForkServer:
    if _SERVERS and not _SERVERS[0].alive:
        _SERVERS.clear()
    if not _SERVERS:
        with _beside_nothing():
            _SERVERS.append(ForkServer(_variables()))
    return _SERVERS[0]


def _variables() -> dict[str, str]:
    """The node's environment, in which other processes find the layerbench that runs here."""
    variables = node_variables()
    places = [one for one in variables.get(PATH, "").split(os.pathsep) if one]
    # Ray puts the user's files there. Each measurement looks there, and what it needs is loaded.
    places = [one for one in places if sent_files.PACKAGE not in one]
    if HOME.name not in INSTALLED and str(HOME) not in places:
        places.append(str(HOME))
    return {**variables, PATH: os.pathsep.join(places)}


def _without_options(variables: Mapping[str, str], words: Sequence[str]) -> dict[str, str]:
    """Without what a node's environment says of a verb: the driver has said all of its options."""
    prefix = f"{ENVIRONMENT}_{words[0].upper()}_" if words else None
    return {
        name: value
        for name, value in variables.items()
        if prefix is None or not name.startswith(prefix)
    }


def _end_group(child: int) -> None:
    """Ask a child's group to end, and kill what does not."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(child, number)
        except (ProcessLookupError, PermissionError):
            return
        if number == signal.SIGINT:
            time.sleep(LOOK_S)


def _last(complaint: bytes) -> str:
    lines = complaint[-TAIL:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
