"""Measure in fresh processes: what differs between processes is the larger part of the noise.

Each worker is ``python -m layerbench.replication FOLDER``: it reads ``request.json`` there and
leaves a folder for each run, or ``error.json``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import Field

from layerbench import devices, errors, runner
from layerbench.environment import command_line
from layerbench.errors import LayerbenchError, WorkerError
from layerbench.interleaved import Task, measure_pair
from layerbench.origins import explained
from layerbench.progress import Progress, Silent
from layerbench.samples import Run
from layerbench.workload import Frozen, Plan, Workload


class Job(Frozen):
    """One workload to measure, and how and where."""

    workload: Workload
    plan: Plan
    device: str


class Request(Frozen):
    """What a worker is asked to measure: one job, or two in turn.

    Attributes:
        number: of the worker; every second one builds the second job's model first.
    """

    jobs: tuple[Job, ...] = Field(min_length=1, max_length=2)
    strict: bool
    number: int = 0


class Failure(Frozen):
    """A worker's error, for the parent to raise again."""

    kind: str
    message: str


def measure_in_processes(
    workload: Workload,
    plan: Plan,
    device: str,
    *,
    progress: Progress | None = None,
    strict: bool = False,
) -> list[Run]:
    """Measure the workload in ``plan.processes`` fresh processes, one after the other.

    Raises:
        LayerbenchError: what a worker raised.
        WorkerError: a worker ended without saying why, for instance killed for its memory.
    """
    job = Job(workload=workload, plan=plan, device=device)
    found = _in_workers(Request(jobs=(job,), strict=strict), plan.processes, progress)
    return [runs[0] for runs in found]


def measure_pair_in_processes(
    jobs: tuple[Job, Job],
    processes: int,
    *,
    progress: Progress | None = None,
    strict: bool = False,
) -> list[tuple[Run, Run]]:
    """Measure two workloads in turn (`layerbench.interleaved`), in each of several processes.

    Raises:
        LayerbenchError: what a worker raised.
        WorkerError: a worker ended without saying why.
    """
    found = _in_workers(Request(jobs=jobs, strict=strict), processes, progress)
    return [(runs[0], runs[1]) for runs in found]


def _in_workers(
    request: Request, processes: int, progress: Progress | None
) -> list[tuple[Run, ...]]:
    listener = progress or Silent()
    found = []
    for number in range(processes):
        listener.step("processes", number, processes)
        with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
            numbered = request.model_copy(update={"number": number})
            found.append(_measure_in_worker(numbered, Path(folder)))
    return found


def _measure_in_worker(request: Request, folder: Path) -> tuple[Run, ...]:
    (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    worker = subprocess.run(
        [sys.executable, "-m", "layerbench.replication", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    if (folder / "error.json").exists():
        failure = Failure.model_validate_json((folder / "error.json").read_text(encoding="utf-8"))
        raise _error_class(failure.kind)(failure.message)
    places = [folder / str(number) for number in range(len(request.jobs))]
    if worker.returncode != 0 or not all((place / "facts.json").exists() for place in places):
        raise WorkerError(_obituary(worker))
    return tuple(_with_our_command(Run.load(place)) for place in places)


def _with_our_command(run: Run) -> Run:
    """A reader wants the command that was given, not the worker's own."""
    environment = run.facts.environment.model_copy(update={"command": command_line(sys.argv)})
    return Run(run.facts.model_copy(update={"environment": environment}), run.arrays)


def _environment() -> dict[str, str]:
    """The parent's, with layerbench importable from wherever the parent found it."""
    home = str(Path(__file__).resolve().parent.parent)
    earlier = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{earlier}" if earlier else home}


def _obituary(worker: subprocess.CompletedProcess[str]) -> str:
    if worker.returncode < 0:
        name = signal.Signals(-worker.returncode).name
        advice = " (the system may have run out of memory)" if name == "SIGKILL" else ""
        return f"a measuring process was ended by {name}{advice}"
    last = worker.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return f"a measuring process ended with status {worker.returncode}: {last[0]}"


def _error_class(name: str) -> type[LayerbenchError]:
    found = getattr(errors, name, LayerbenchError)
    is_ours = isinstance(found, type) and issubclass(found, LayerbenchError)
    return found if is_ours else LayerbenchError


def _work(folder: Path) -> None:
    """Do what ``request.json`` asks for."""
    request = Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
    try:
        runs = _measured(request)
    except LayerbenchError as error:
        failure = Failure(kind=type(error).__name__, message=explained(error))
        (folder / "error.json").write_text(failure.model_dump_json(), encoding="utf-8")
        return
    for number, run in enumerate(runs):
        place = folder / str(number)
        place.mkdir()
        run.save(place)


def _measured(request: Request) -> tuple[Run, ...]:
    tasks = [Task(job.workload, job.plan, devices.get(job.device)) for job in request.jobs]
    if len(tasks) == 1:
        only = tasks[0]
        return (runner.measure(only.workload, only.plan, only.device, strict=request.strict),)
    return measure_pair(
        (tasks[0], tasks[1]), contender_first=request.number % 2 == 1, strict=request.strict
    )


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
