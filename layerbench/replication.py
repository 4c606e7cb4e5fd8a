"""Measure in fresh processes: what differs between processes is the larger part of the noise.

Each worker is ``python -m layerbench.replication FOLDER``: it reads ``request.json`` there and
leaves its run, or ``error.json``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from layerbench import devices, errors, runner
from layerbench.environment import command_line
from layerbench.errors import LayerbenchError, WorkerError
from layerbench.progress import Progress, Silent
from layerbench.samples import Run
from layerbench.workload import Frozen, Plan, Workload


class Request(Frozen):
    """What a worker is asked to measure."""

    workload: Workload
    plan: Plan
    device: str
    strict: bool


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
    request = Request(workload=workload, plan=plan, device=device, strict=strict)
    listener = progress or Silent()
    runs = []
    for number in range(plan.processes):
        listener.step("processes", number, plan.processes)
        with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
            runs.append(_measure_in_worker(request, Path(folder)))
    return runs


def _measure_in_worker(request: Request, folder: Path) -> Run:
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
    if worker.returncode != 0 or not (folder / "facts.json").exists():
        raise WorkerError(_obituary(worker))
    run = Run.load(folder)
    # A reader wants the command that was given, not the worker's own.
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
        run = runner.measure(
            request.workload, request.plan, devices.get(request.device), strict=request.strict
        )
    except LayerbenchError as error:
        failure = Failure(kind=type(error).__name__, message=str(error))
        (folder / "error.json").write_text(failure.model_dump_json(), encoding="utf-8")
        return
    run.save(folder)


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
