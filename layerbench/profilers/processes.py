"""Measure in fresh processes: what differs between processes is the larger part of the noise.

Each worker is ``python -m layerbench.profilers.processes DESCRIPTOR``: it reads a request from
standard input, which stays open for as long as its parent lives, and writes its runs, or an error,
into the file of that descriptor. The file has no name, so that nothing is left of it however both
end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import Field

from layerbench import errors
from layerbench.environment import devices
from layerbench.environment.notices import notices_kept_back
from layerbench.environment.origins import explained
from layerbench.environment.orphans import end_with_input, end_with_parent
from layerbench.environment.software import command_line
from layerbench.errors import LayerbenchError, WorkerError
from layerbench.profilers import timing
from layerbench.profilers.handing_over import HandedOver, handed_over, received
from layerbench.profilers.paired import Task, measure_pair
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.samples import Run
from layerbench.records.workload import Frozen, Plan, Workload
from layerbench.zoo import Built

ERROR = "error.json"
INTERRUPTED = 130
# An interrupted worker adds up what it has; one whose work is not wanted just ends.
TO_SAY_S, TO_END_S = 30.0, 5.0


class Job(Frozen):
    """One workload to measure, and how and where.

    Attributes:
        handed: a module object with its inputs; ``None`` builds the workload's model.
    """

    workload: Workload
    plan: Plan
    device: str
    handed: HandedOver | None = None


class Request(Frozen):
    """What a worker is asked to measure: one job, or two in turn.

    Attributes:
        keep_interrupted: give the rounds so far where somebody interrupts; for one job alone.
        number: of the worker; every second one builds the second job's model first.
        parent: the process that asks.
        folders: in which it looks for modules: it may have been told of more than a fresh one is.
    """

    jobs: tuple[Job, ...] = Field(min_length=1, max_length=2)
    strict: bool
    keep_interrupted: bool = False
    number: int = 0
    parent: int | None = None
    folders: tuple[str, ...] = ()


class Failure(Frozen):
    """A worker's error, for the parent to raise again."""

    kind: str
    message: str


def measure_in_processes(
    workload: Workload,
    plan: Plan,
    device: str,
    *,
    subject: Built | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    keep_interrupted: bool = False,
) -> list[Run]:
    """Measure the workload in ``plan.processes`` fresh processes, one after the other.

    Args:
        workload, plan, device, subject, progress, strict: as for
            `layerbench.profilers.timing.measure`. A subject goes to them as `torch.save` writes it.
        keep_interrupted: on an interrupt, end with the runs so far; the last one says that it was
            interrupted.

    Raises:
        UsageError: the subject cannot be handed over.
        LayerbenchError: what a worker raised.
        WorkerError: a worker ended without saying why, for instance killed for its memory.
        KeyboardInterrupt: where there is nothing to keep, or it is not wanted.
    """
    with handed_over(subject) as handed:
        job = Job(workload=workload, plan=plan, device=device, handed=handed)
        request = Request(jobs=(job,), strict=strict, keep_interrupted=keep_interrupted)
        return [runs[0] for runs in _in_workers(request, plan.processes, progress)]


def measure_pair_in_processes(
    jobs: tuple[Job, Job],
    processes: int,
    *,
    subjects: tuple[Built | None, Built | None] = (None, None),
    progress: Progress | None = None,
    strict: bool = False,
) -> list[tuple[Run, Run]]:
    """Measure two workloads in turn (`layerbench.profilers.paired`), in each of several processes.

    Args:
        jobs: baseline and contender.
        processes: how many.
        subjects: models and inputs that were handed over.
        progress, strict: as for `measure_in_processes`.

    Raises:
        UsageError: a subject cannot be handed over.
        LayerbenchError: what a worker raised.
        WorkerError: a worker ended without saying why.
    """
    with handed_over(subjects[0]) as first, handed_over(subjects[1]) as second:
        sent = tuple(
            job.model_copy(update={"handed": handed})
            for job, handed in zip(jobs, (first, second), strict=True)
        )
        pairs = _in_workers(Request(jobs=sent, strict=strict), processes, progress)
    return [(runs[0], runs[1]) for runs in pairs]


def _in_workers(
    request: Request, processes: int, progress: Progress | None
) -> list[tuple[Run, ...]]:
    listener = progress or Silent()
    runs: list[tuple[Run, ...]] = []
    asking = {"parent": os.getpid(), "folders": tuple(sys.path)}
    for number in range(processes):
        listener.step("processes", number, processes)
        numbered = request.model_copy(update={"number": number, **asking})
        try:
            runs.append(_measure_in_worker(numbered))
        except KeyboardInterrupt:
            if not (request.keep_interrupted and runs):
                raise
            runs[-1] = tuple(map(_interrupted, runs[-1]))
        if runs[-1][0].facts.stop == "interrupted":
            break
    return runs


def _interrupted(run: Run) -> Run:
    """The last of fewer processes than were to be."""
    return Run(run.facts.model_copy(update={"stop": "interrupted"}), run.arrays)


def _measure_in_worker(request: Request) -> tuple[Run, ...]:
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        worker = subprocess.Popen(
            [sys.executable, "-m", "layerbench.profilers.processes", str(answer.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(answer.fileno(),),
            env=_environment(),
        )
        interrupted = _wait(worker, request)
        said.seek(0)
        last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return _answer(answer, worker.returncode, last, interrupted)


def _wait(worker: subprocess.Popen[bytes], request: Request) -> bool:
    """Hand the request over and wait for the worker's end; whether somebody interrupted it.

    A worker that is interrupted is given time to say what it has; a second interrupt ends it.
    """
    assert worker.stdin is not None
    try:
        with suppress(BrokenPipeError):
            worker.stdin.write(request.model_dump_json().encode() + b"\n")
            worker.stdin.flush()
        worker.wait()
    except KeyboardInterrupt:
        worker.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            worker.wait(TO_SAY_S if request.keep_interrupted else TO_END_S)
        return True
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
        with suppress(BrokenPipeError):
            worker.stdin.close()
    return False


def _answer(answer: IO[bytes], status: int, last: list[str], interrupted: bool) -> tuple[Run, ...]:
    answer.seek(0)
    try:
        with zipfile.ZipFile(answer) as parts:
            return _unpacked(parts)
    except (zipfile.BadZipFile, EOFError) as error:
        if interrupted or status == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise WorkerError(_reason_of_end(status, last)) from error


def _unpacked(parts: zipfile.ZipFile) -> tuple[Run, ...]:
    if ERROR in parts.namelist():
        failure = Failure.model_validate_json(parts.read(ERROR))
        raise _error_class(failure.kind)(failure.message)
    return tuple(map(_with_our_command, Run.unpacked(parts)))


def _with_our_command(run: Run) -> Run:
    """A reader wants the command that was given, not the worker's own."""
    environment = run.facts.environment.model_copy(update={"command": command_line(sys.argv)})
    return Run(run.facts.model_copy(update={"environment": environment}), run.arrays)


def _environment() -> dict[str, str]:
    """The parent's, with layerbench importable from wherever the parent found it."""
    home = str(Path(__file__).resolve().parents[2])
    earlier = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{earlier}" if earlier else home}


def _reason_of_end(status: int, last: list[str]) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        advice = " (the system may have run out of memory)" if name == "SIGKILL" else ""
        return f"a measuring process was ended by {name}{advice}"
    said = last[0] if last else "it said nothing"
    return f"a measuring process ended with status {status}: {said}"


def _error_class(name: str) -> type[LayerbenchError]:
    error_class = getattr(errors, name, LayerbenchError)
    is_ours = isinstance(error_class, type) and issubclass(error_class, LayerbenchError)
    return error_class if is_ours else LayerbenchError


def _work(answer: IO[bytes]) -> None:
    """Do what a line of standard input asks for."""
    request = Request.model_validate_json(sys.stdin.readline())
    end_with_parent(request.parent)
    end_with_input()
    signal.signal(signal.SIGINT, _interrupted_once)
    runs: tuple[Run, ...] = ()
    failure: Failure | None = None
    try:
        with notices_kept_back():
            runs = _measured(request)
    except LayerbenchError as error:
        failure = Failure(kind=type(error).__name__, message=explained(error))
    # Made last: an archive that was begun would be closed, and read as an answer.
    with zipfile.ZipFile(answer, "w") as parts:
        Run.pack(runs, parts)
        if failure is not None:
            parts.writestr(ERROR, failure.model_dump_json())


def _interrupted_once(number: int, frame: object) -> None:
    """A terminal interrupts parent and worker, and the parent the worker: once is meant."""
    del number, frame
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measured(request: Request) -> tuple[Run, ...]:
    # An empty entry is the folder that a process was started in, and both have the same.
    sys.path += [folder for folder in request.folders if folder not in sys.path]
    tasks = [Task(job.workload, job.plan, devices.get(job.device)) for job in request.jobs]
    subjects = [received(job.handed) for job in request.jobs]
    if len(tasks) == 1:
        only = tasks[0]
        run = timing.measure(
            only.workload,
            only.plan,
            only.device,
            subject=subjects[0],
            strict=request.strict,
            keep_interrupted=request.keep_interrupted,
        )
        return (run,)
    return measure_pair(
        (tasks[0], tasks[1]),
        subjects=(subjects[0], subjects[1]),
        contender_first=request.number % 2 == 1,
        strict=request.strict,
    )


if __name__ == "__main__":
    try:
        with os.fdopen(int(sys.argv[1]), "wb") as file:
            _work(file)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
