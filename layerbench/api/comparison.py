"""Two models timed in turn in one process, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.analysis.aggregation import assemble
from layerbench.analysis.comparison import THRESHOLD, check_same_input, judge
from layerbench.analysis.kernel_pairs import kernel_pairs
from layerbench.analysis.paired import of_rounds
from layerbench.api.bars import heard
from layerbench.api.inputs import plan_of, what_runs, where_it_runs
from layerbench.api.timing import Measurement
from layerbench.errors import UntrustedError
from layerbench.profilers.paired import Task, measure_pair
from layerbench.profilers.processes import Job, measure_pair_in_processes
from layerbench.profilers.progress import Progress
from layerbench.records.comparison import Comparison
from layerbench.records.defaults import MEASURED_ITERATIONS, WARMUP_ITERATIONS
from layerbench.zoo import Built


@dataclass(frozen=True)
class LiveComparison:
    """Two workloads measured in turn: the comparison, and what each side's record would be."""

    comparison: Comparison
    baseline: Measurement
    contender: Measurement


def compare_live(
    baseline: str | nn.Module,
    contender: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    checkpoints: tuple[str | Path | None, str | Path | None] = (None, None),
    inputs: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    warmup: int = WARMUP_ITERATIONS,
    iterations: int = MEASURED_ITERATIONS,
    processes: int = 1,
    threshold: float = THRESHOLD,
    progress: Progress | bool | None = None,
) -> Comparison:
    """Measure two models forward by forward in turn, and compare them.

    Args:
        baseline, contender: model specs or modules, as in `profile`, on the same input.
        input, batch, inputs, device, threads, warmup: as in `profile`, for both.
        checkpoints: files of weights, of the baseline and of the contender.
        iterations: measured rounds; each runs both, untouched and instrumented.
        processes: fresh processes to repeat it in; modules go to them as `torch.save` writes them.
        threshold: changes up to this are the same (0.05 for 5 %).
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each step.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = plan_of(warmup=warmup, iterations=iterations, processes=processes, threads=threads)
    tasks, subjects = [], []
    for model, checkpoint in zip((baseline, contender), checkpoints, strict=True):
        workload, subject = what_runs(
            model,
            input,
            batch=batch,
            device=device,
            channels_last=False,
            mode="eval",
            seed=0,
            checkpoint=checkpoint,
            inputs=inputs,
        )
        tasks.append(Task(workload, plan, where_it_runs(subject, device)))
        subjects.append(subject)
    with heard(progress) as listener:
        measured = measure_live(
            (tasks[0], tasks[1]),
            names=(tasks[0].workload.model, tasks[1].workload.model),
            subjects=(subjects[0], subjects[1]),
            threshold=threshold,
            progress=listener,
        )
    return measured.comparison


def measure_live(
    tasks: tuple[Task, Task],
    *,
    names: tuple[str, str],
    subjects: tuple[Built | None, Built | None] = (None, None),
    threshold: float = THRESHOLD,
    strict: bool = False,
    progress: Progress | None = None,
) -> LiveComparison:
    """Measure two workloads in turn, in as many processes as the first one's plan says.

    Raises:
        ComparisonError: inputs of different shapes.
        UntrustedError: ``strict``, and the machine was too busy to tell, or the device disturbed.
        LayerbenchError: as `profile`.
    """
    check_same_input(tasks[0].workload, tasks[1].workload, names)
    processes = tasks[0].plan.processes
    if processes == 1:
        pair = measure_pair(tasks, subjects=subjects, strict=strict, progress=progress)
        pairs = [pair]
    else:
        first, second = (
            Job(workload=task.workload, plan=task.plan, device=str(task.device.torch_device))
            for task in tasks
        )
        pairs = measure_pair_in_processes(
            (first, second), processes, subjects=subjects, strict=strict, progress=progress
        )
    before, after = (
        Measurement(assemble(task.workload, task.plan, runs), tuple(runs))
        for task, runs in zip(tasks, zip(*pairs, strict=True), strict=True)
    )
    kernels = kernel_pairs(before.profile, after.profile)
    evidence = of_rounds(pairs, tasks[0].workload.seed, kernels.pairs)
    comparison = judge(
        before.profile,
        after.profile,
        evidence,
        names=names,
        threshold=threshold,
        kernels=kernels,
    )
    if strict and comparison.disturbed:
        raise UntrustedError(f"--strict: {comparison.disturbed}")
    return LiveComparison(comparison, before, after)
