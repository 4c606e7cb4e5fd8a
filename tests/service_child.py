"""Stands for `layerbench.service.child`: the same process around a work that tests choose.

What it does is told by the architecture's name; how long, by the number after a dash.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from layerbench.errors import UsageError
from layerbench.service import child
from layerbench.service.found import Found, Known
from tests.sample_profiles import environment

DIFFERENT = 600
WORKS = ("quick", "hang", "stubborn", "segv", "kill", "exit", "memory", "refuse", "chatty", "brief")
NAMES = [*WORKS, *(f"quick{number}" for number in range(DIFFERENT)), "slow"]
# Every measurement leaves a line here: its process.
STARTED = "LAYERBENCH_TEST_STARTED"


def listed(_asked: dict[str, Any]) -> dict[str, Any]:
    models = {"classification": NAMES, "detection": ["detector"], "instance": []}
    return {"device": "cpu", "models": {**models, "segmentation": []}}


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    name = asked["question"]["architecture"]
    if STARTED in os.environ:
        with Path(os.environ[STARTED]).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
    began_at = time.time()
    _behave(name.rstrip("0123456789"))
    training = asked["question"]["application_type"] == "training"
    time_of = Known(value=0.5, low=0.4, high=0.6)
    return Found(
        parameters=10,
        steps=5,
        forward=time_of if training else None,
        backward=Known(value=1.0, low=0.9, high=1.2) if training else None,
        one_image=None if training else time_of,
        batch=None if training else time_of,
        ram_before=100,
        ram_peak=200,
        cpu_peak=0.5,
        began_at=began_at,
        ended_at=time.time(),
        environment=environment(),
    ).model_dump(mode="json")


def _behave(work: str) -> None:
    if work == "hang":
        time.sleep(1000)
    elif work == "slow":
        time.sleep(0.5)
    elif work == "brief":
        time.sleep(0.1)
    elif work == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # A process of its own that does not end by itself either.
        subprocess.Popen(
            [sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(1000)"]
        )
        time.sleep(1000)
    elif work == "segv":
        ctypes.string_at(0)
    elif work == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif work == "exit":
        os._exit(0)
    elif work == "memory":
        bytearray(4 * 2**30)
    elif work == "refuse":
        raise UsageError("this model\ntakes no such image")
    elif work == "chatty":
        print("x" * 2**20)
        print("y" * 2**20, file=sys.stderr)


if __name__ == "__main__":
    child.main(measured, listed)
