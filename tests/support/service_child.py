"""Stands for `layerbench.service.worker.process`: the same process around a work that tests choose.

What it does is told by the architecture's name. A profile of ``told`` does what a test writes into
a named pipe, line by line.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from layerbench.environment import cards
from layerbench.errors import DeviceUnavailable, UsageError
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.workload import Workload
from layerbench.service.protocol.results import (
    CardPrediction,
    CardSurroundings,
    Figure,
    MeasurementResult,
    PredictedFigure,
)
from layerbench.service.worker import process
from tests.support.sample_profiles import environment, layered
from tests.support.sample_structures import INPUT, OUTPUT, graph

DIFFERENT = 600
WORKS = (
    "quick", "hang", "stubborn", "segv", "kill", "exit", "memory", "refuse", "chatty", "brief",
    "shared", "malformed", "infinite", "unsteady",
)  # fmt: skip
NAMES = [*WORKS, *(f"quick{number}" for number in range(DIFFERENT)), "slow", "told"]
# Every measurement leaves a line here: its process.
STARTED = "LAYERBENCH_TEST_STARTED"
# As every structure.
DRAWN = "LAYERBENCH_TEST_DRAWN"
# As every prediction.
PREDICTED = "LAYERBENCH_TEST_PREDICTED"
# What predictions are made of.
PREDICTOR = "LAYERBENCH_TEST_PREDICTOR"
# A named pipe: what a profile of ``told`` says, a JSON event a line, until it is closed.
SCRIPT = "LAYERBENCH_TEST_SCRIPT"


def listed(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["device"] == "evil":
        raise DeviceUnavailable("no device 'evil' on this machine")
    models = {"classification": NAMES, "detection": ["detector"], "instance": []}
    return {
        "device": "cpu",
        "devices": {"cpu": "cpu", "cuda:0": "cuda:0 a-gpu"},
        "models": {**models, "segmentation": []},
        "shorthands": {"fast": "quick"},
        "predictor": os.environ.get(PREDICTOR, ""),
    }


def structure(model: str) -> Structure:
    """A model of one layer."""
    workload = Workload(model=model, input="2x3x32x32", shape=(2, 3, 32, 32), batch=2)
    fields = {"calls": 1, "parameters": 10, "trainable": 10, "own_parameters": 10, "buffers": 0}
    rows = [
        StructureRow.model_validate({"path": path, "type": kind, "depth": depth, **fields})
        for path, kind, depth in (("", "TinyNet", 0), ("classifier", "Linear", 1))
    ]
    return Structure(
        workload=workload,
        how="meta",
        torch="2.8.0",
        layerbench="0.1.0",
        model_type="TinyNet",
        parameters=10,
        trainable=10,
        parameter_bytes=40,
        buffers=0,
        buffer_bytes=0,
        flops=20,
        rows=tuple(rows),
        graphs=(graph("", [INPUT, ("module", "classifier"), OUTPUT], [(0, 1), (1, 2)]),),
    )


def drawn(asked: dict[str, Any]) -> dict[str, Any]:
    name = asked["question"]["architecture"]
    _note(DRAWN, name)
    if name == "brief":
        print("not an answer")
    _behave(name.rstrip("0123456789"))
    return structure(name).model_dump(mode="json")


def profiled(asked: dict[str, Any], offer: process.EventSink) -> dict[str, Any]:
    name = asked["question"]["architecture"]
    _note(STARTED, name)
    if name == "told":
        with Path(os.environ[SCRIPT]).open() as script:
            for line in script:
                while not offer(json.loads(line)):
                    time.sleep(0.001)
    else:
        _behave(name.rstrip("0123456789"))
    return {
        "profile": layered().model_dump(mode="json", by_alias=True),
        "structure": structure(name).model_dump(mode="json"),
        "memory": None,
    }


def _note(variable: str, name: str) -> None:
    if variable in os.environ:
        with Path(os.environ[variable]).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    name = asked["question"]["architecture"]
    _note(STARTED, name)
    began_at = time.time()
    _behave(name.rstrip("0123456789"))
    training = asked["question"]["application_type"] == "training"
    time_of = Figure(value=0.5, low=0.4, high=0.6)
    if name == "malformed":
        return {"parameters": "many"}
    if name == "infinite":
        return {"forward": {"value": math.inf}}
    if name == "unsteady":
        time_of = Figure(value=0.5, low=4.5e-05, high=426.0)
    return MeasurementResult(
        parameters=10,
        steps=5,
        forward=time_of if training else None,
        backward=Figure(value=1.0, low=0.9, high=1.2) if training else None,
        one_image=None if training else time_of,
        batch=None if training else time_of,
        ram_before=100,
        ram_peak=200,
        cpu_peak=0.5,
        began_at=began_at,
        ended_at=time.time(),
        environment=environment(),
    ).model_dump(mode="json")


def predicted(asked: dict[str, Any]) -> dict[str, Any]:
    question = asked["question"]
    _note(PREDICTED, f"{question['architecture']} {question['device']}")
    _behave(question["architecture"].rstrip("0123456789"))
    if question["architecture"] == "malformed":
        return {"parameters": "many"}
    training = question["application_type"] == "training"
    time_of = PredictedFigure(value=0.25, low=0.125, high=0.5)
    return CardPrediction(
        parameters=10,
        forward=time_of if training else None,
        backward=PredictedFigure(value=0.5, low=0.25, high=1.0) if training else None,
        one_image=None if training else PredictedFigure(value=0.125, low=0.0625, high=0.25),
        batch=None if training else time_of,
        gpu_memory_peak=PredictedFigure(value=2.0**30, low=2.0**29, high=2.0**31),
        environment=CardSurroundings(
            card=cards.get(question["device"]), torch="2.8.0", layerbench="0.1.0"
        ),
        notes=("times: not checked",),
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
    elif work == "shared":
        shared = mmap.mmap(-1, 400 * 2**20)
        for page in range(0, len(shared), mmap.PAGESIZE):
            shared[page] = 1
        time.sleep(1000)
    elif work == "refuse":
        raise UsageError("this model takes no such image")
    elif work == "chatty":
        print("x" * 2**20)
        print("y" * 2**20, file=sys.stderr)


if __name__ == "__main__":
    process.main(measured, listed, profiled, drawn, predicted)
