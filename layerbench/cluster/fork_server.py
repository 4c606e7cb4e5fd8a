"""A process that has loaded what measuring needs, and forks a fresh one for each measurement.

``python -m layerbench.cluster.fork_server``: it reads an order a line from standard input, forks,
and answers with a line when the child has begun and one when it has ended. It never computes
anything itself, so a child begins as a new process does, without the seconds that loading takes.
It ends with its standard input, and its child with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from layerbench.environment.orphans import end_with_parent

# What the verbs load: most of the time that a measurement of a small model would take.
LOADED = (
    "torchvision",
    "layerbench.api.timing",
    "layerbench.api.sweep",
    "layerbench.training.detection.estimate",
    "layerbench.cli.timer",
    "layerbench.cli.sweep",
    "layerbench.cli.estimate_detection",
    "layerbench.cli._progress",
    "layerbench.reporters.json",
    "layerbench.environment.cards",
)


def main() -> None:
    """Serve until standard input ends, or the process that began it does."""
    end_with_parent()
    for name in LOADED:
        importlib.import_module(name)
    # Children share what was loaded: looking through it for garbage would copy it.
    gc.collect()
    gc.freeze()
    _say({"loaded": os.getpid()})
    # Not `sys.stdin`: a child would inherit what it has read ahead.
    with os.fdopen(os.dup(0), "rb", buffering=0) as orders:
        while line := orders.readline():
            _serve(json.loads(line))


def _serve(order: dict[str, Any]) -> None:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(order, parent)
    _say({"begun": child})
    _, status = os.waitpid(child, 0)
    _say({"ended": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _become(order: dict[str, Any], parent: int) -> NoReturn:
    """Run the order's module, and end as it does."""
    status = 1
    try:
        os.setsid()
        end_with_parent(parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _redirect(order)
        os.environ.clear()
        os.environ.update(order["variables"])
        os.chdir(order["folder"])
        sys.path.insert(0, order["folder"])
        sys.argv = [order["module"], *order["words"]]
        runpy.run_module(order["module"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = _status(end)
    except BaseException as error:  # as Python would end
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _redirect(order: dict[str, Any]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "output"), (2, "complaint")):
        file = os.open(Path(order[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.close(nothing)


if __name__ == "__main__":
    main()
