"""A process that makes one measurement and ends: ``python -m layerbench.service.worker.process``.

One JSON object comes in on standard input, one goes out on standard output: what was ``found``, or
the ``error``. A profile's is preceded by lines with an ``event`` each. Whatever else is printed
goes to standard error. It ends when the server does: standard input is held open by the server, and
its end is the child's.

One process stays, after it has told device and architectures: it works out structures, and predicts
for cards that are not here, a line with a question coming in for each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerbench.environment.orphans import end_with_input
from layerbench.service.protocol.confinement import NICE, end_first, limit_memory
from layerbench.service.protocol.pipe import PipeWriter
from layerbench.service.web.job_events import PROGRESS, WAITING

ORPHANED = 3

# Dissected before anybody asks: the first model of a process takes a second longer than others.
WARMING = {"architecture": "resnet18", "batch_size": 1, "image_size": [32, 32]}

Work = Callable[[dict[str, Any]], dict[str, Any]]
EventSink = Callable[[dict[str, Any]], bool]
ToldWork = Callable[[dict[str, Any], EventSink], dict[str, Any]]


def main(
    measured: Work | None = None,
    listed: Work | None = None,
    profiled: ToldWork | None = None,
    drawn: Work | None = None,
    predicted: Work | None = None,
) -> None:
    """Read a question, measure, and write the answer.

    Args:
        measured: does the work of a measurement.
        listed: says what the device is, and lists architectures by task.
        profiled: does the work of a profile, and offers events meanwhile.
        drawn: works a structure out.
        predicted: does the work of a prediction.
    """
    pipe = PipeWriter(os.dup(1))
    # Libraries print what they like, but not into the answer.
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    end_first()
    limit_memory(task.get("memory_bytes"))
    if task["what"] == "models":
        pipe.send(_explained(listed or _listed, task))
        _draw(drawn or _drawn, predicted or _predicted, pipe)
        return
    end_with_input()
    if task["what"] == "profile":
        work = profiled or _profiled
        answer = _alone(lambda task: work(task, pipe.try_send), task, pipe.try_send)
    else:
        answer = _alone(measured or _measured, task, pipe.try_send)
    pipe.send(answer)


def _draw(drawn: Work, predicted: Work, pipe: PipeWriter) -> None:
    """Answer questions about structures and cards, one by one, for as long as the server asks."""
    os.nice(NICE)
    _explained(drawn, {"question": WARMING})
    for line in sys.stdin:
        task = json.loads(line)
        pipe.send(_explained(predicted if task.get("what") == "prediction" else drawn, task))


def _alone(work: Work, task: dict[str, Any], offer: EventSink) -> dict[str, Any]:
    """Work while no other process of this machine measures on the device."""
    from filelock import Timeout

    from layerbench.environment.device_lock import cannot_be_taken, lock_of

    # Held by this process: the kernel releases it when the process dies, however it dies.
    path = Path(task["lock"])
    lock = lock_of(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            offer(_phase(WAITING))
            lock.acquire()
            offer(_phase("building"))
    except OSError as error:
        return {"no_device": cannot_be_taken(path, error)}
    with lock:
        return _explained(work, task)


def _phase(name: str) -> dict[str, Any]:
    return {"kind": PROGRESS, "phase": name, "done": 0, "total": 1}


def _explained(work: Work, task: dict[str, Any]) -> dict[str, Any]:
    from layerbench.errors import LayerbenchError

    try:
        return {"found": work(task)}
    except LayerbenchError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "not enough memory: take a smaller input or batch"}


def _measured(task: dict[str, Any]) -> dict[str, Any]:
    from layerbench.service.protocol.questions import Question
    from layerbench.service.worker.estimate import measure

    question = Question.model_validate(task["question"])
    return measure(question, task["device"], task["seconds"]).model_dump(mode="json")


def _profiled(task: dict[str, Any], offer: EventSink) -> dict[str, Any]:
    from layerbench.service.protocol.questions import ProfileQuestion
    from layerbench.service.worker.profile import profile

    return profile(ProfileQuestion.model_validate(task["question"]), task["device"], offer)


def _predicted(task: dict[str, Any]) -> dict[str, Any]:
    import torch

    # Beside a measurement.
    torch.set_num_threads(1)
    from layerbench.service.protocol.questions import Question
    from layerbench.service.worker.prediction import predict

    return predict(Question.model_validate(task["question"])).model_dump(mode="json")


def _drawn(task: dict[str, Any]) -> dict[str, Any]:
    import torch

    # A model for which shapes do not suffice runs for real, perhaps beside a measurement.
    torch.set_num_threads(1)
    from layerbench.service.protocol.questions import ViewQuestion
    from layerbench.service.worker.profile import structure

    return structure(ViewQuestion.model_validate(task["question"]))


def _listed(task: dict[str, Any]) -> dict[str, Any]:
    from layerbench.service.worker.catalog import device, devices_for, models
    from layerbench.service.worker.prediction import made_of
    from layerbench.zoo import SHORTHANDS

    return {
        "device": device(task["device"]),
        "devices": devices_for(task["device"]),
        "models": models(),
        "shorthands": SHORTHANDS,
        "predictor": made_of(),
    }


if __name__ == "__main__":
    main()
