"""A `python` for scripts whose every call is a fork of a process that has loaded torch.

A script that starts twelve Pythons one after the other would load torch twelve times, which takes
longer than what they do. Here a call of the program only says what it was called with; the fork
writes where the program would have written, and the program ends as it does.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

from tests.support.prepared import start_script

# What a caller gets whose fork was ended, as of a shell.
ENDED = 143

_PROGRAM = """#!{python} -SEs
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    call = {{"words": sys.argv[1:], "pid": os.getpid(), "environment": dict(os.environ)}}
    line.sendall(json.dumps(call).encode() + b"\\n")
    sys.exit(int(line.recv(16) or {ended}))
"""


@contextmanager
def python_of_forks() -> Iterator[Path]:
    """Path of the program, for the duration of a ``with`` block; it takes scripts and ``-m``."""
    # A socket's path may have some hundred letters: fewer than those of pytest's folders.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        address = f"{folder}/calls"
        listening.bind(address)
        listening.listen()
        program = Path(folder) / "python"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address, ended=ENDED))
        program.chmod(0o755)
        answering = Thread(target=_answer_all, args=(listening,), daemon=True)
        answering.start()
        try:
            yield program
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            answering.join()


def _answer_all(listening: socket.socket) -> None:
    """One call after the other, as a script makes them, until nobody listens any more."""
    while True:
        try:
            line, _ = listening.accept()
        except OSError:
            return
        with line:
            _answer(line)


def _answer(line: socket.socket) -> None:
    call = json.loads(line.makefile().readline())
    streams = Path(f"/proc/{call['pid']}/fd")
    fork = start_script(*call["words"], out=streams / "1", err=streams / "2", **call["environment"])
    if fork.sentinel not in wait([fork.sentinel, line]):
        fork.terminate()  # the caller was ended
        fork.join()
        return
    fork.join()
    status = fork.exitcode if fork.exitcode is not None else 1
    line.sendall(str(status if status >= 0 else 128 - status).encode())
