"""Time of a model and of each of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.analysis.aggregation import assemble
from layerbench.api.bars import heard
from layerbench.api.inputs import plan_of, what_runs, where_it_runs
from layerbench.environment.collection import no_collection
from layerbench.environment.devices import Device
from layerbench.errors import UntrustedError, UsageError
from layerbench.profilers import timing
from layerbench.profilers.ceilings import with_ceilings
from layerbench.profilers.processes import measure_in_processes
from layerbench.profilers.progress import Progress
from layerbench.records.defaults import MEASURED_ITERATIONS, WARMUP_ITERATIONS
from layerbench.records.samples import Run
from layerbench.records.timing import Profile
from layerbench.records.workload import (
    CompileMode,
    DType,
    Granularity,
    Mode,
    Plan,
    Precision,
    Workload,
)
from layerbench.zoo import Built


@dataclass(frozen=True)
class Measurement:
    """A record and the samples it was made from, one run for each process."""

    profile: Profile
    runs: tuple[Run, ...]


def profile(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    warmup: int = WARMUP_ITERATIONS,
    iterations: int = MEASURED_ITERATIONS,
    function_iterations: int | None = None,
    processes: int = 1,
    until: float | None = None,
    granularity: Granularity = "layers",
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    compile: bool | CompileMode = False,
    cuda_graph: bool = False,
    mode: Mode = "eval",
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    ceilings: bool = True,
    isolate: bool = False,
    energy: bool = False,
    strict: bool = False,
    progress: Progress | bool | None = None,
) -> Profile:
    """Time a model, its blocks and its layers.

    Args:
        model: a model spec (``"resnet50"``, ``"timm:NAME"``, ``"hf:NAME"``,
            ``"package.module:callable"``, ``"file.py:callable"``) or a module, which is measured
            where it is and left as it was.
        input: a named input or a shape (``"pascal"``, ``"8x3x224x224"``); for a module also a
            tensor, a tuple of positional arguments, or a dict of keyword arguments. ``None`` takes
            the model family's usual one.
        batch: images per forward.
        device: ``"cpu"``, ``"cuda"``, ...; ``None`` takes the accelerator if there is one.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        warmup, iterations, function_iterations, processes, until, granularity: see `Plan`.
        precision, channels_last, compile, cuda_graph, mode, seed, weights: see `Workload`. A module
            handed over is converted to none: autocast and TF32 are for any.
        dtype: the older name of a precision that converts: ``"bfloat16"`` is ``"bf16"``.
        checkpoint: a file of weights (.pth, .pt, .bin, .safetensors) for a model by name.
        inputs: a file of inputs (.pt, .npz, .json) for a model by name, in place of ``input``.
        ceilings: measure the device's own afterwards (`Profile.ceilings`), once in a process for
            each number format: they say what bounds a layer.
        isolate: run every leaf alone, too, on the inputs that it had: hot and with cold caches
            (`LayerRow.isolated_hot`, ``isolated_cold``).
        energy: measure the joules of a forward (`Profile.energy`); where no counter can be read,
            `Profile.absent` says why.
        strict: raise `UntrustedError` where the room or the whole model's verdict says no.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each step.

    Returns:
        the record; times in seconds.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = plan_of(
        warmup=warmup,
        iterations=iterations,
        function_iterations=function_iterations,
        processes=processes,
        threads=threads,
        until=until,
        granularity=granularity,
        isolate=isolate or None,
        energy=energy or None,
    )
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        device=device,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        compile=compile,
        cuda_graph=cuda_graph,
        mode=mode,
        seed=seed,
        weights=weights,
        checkpoint=checkpoint,
        inputs=inputs,
    )
    where = where_it_runs(subject, device)
    with heard(progress) as listener:
        measured = measure(
            workload,
            plan,
            where,
            subject=subject,
            ceilings=ceilings,
            strict=strict,
            progress=listener,
        )
    return measured.profile


def measure(
    workload: Workload,
    plan: Plan,
    device: Device,
    *,
    subject: Built | None = None,
    ceilings: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    keep_interrupted: bool = False,
) -> Measurement:
    """Measure a workload by a plan and make its record; the samples come with it.

    Args:
        workload, plan, device, subject, strict, progress, keep_interrupted: as for
            `layerbench.profilers.timing.measure`.
        ceilings: measure the device's own too, after all rounds of all processes.

    Raises:
        LayerbenchError: as `profile`.
    """
    if plan.isolate and workload.compile:
        raise UsageError(
            "--isolate runs every leaf by itself, and compiled code calls none: leave out "
            "--isolate or --compile"
        )
    if plan.processes == 1:
        run = timing.measure(
            workload,
            plan,
            device,
            subject=subject,
            strict=strict,
            progress=progress,
            keep_interrupted=keep_interrupted,
        )
        runs = [run]
    else:
        name = str(device.torch_device)
        runs = measure_in_processes(
            workload,
            plan,
            name,
            subject=subject,
            strict=strict,
            progress=progress,
            keep_interrupted=keep_interrupted,
        )
    with no_collection():
        record = assemble(workload, plan, runs)
    if strict:
        _insist(record)
    if ceilings and record.layers and record.stop != "interrupted":
        record = with_ceilings(record, device)
    return Measurement(record, tuple(runs))


def _insist(record: Profile) -> None:
    reasons = list(record.environment.warnings)
    if record.whole.verdict != "stable":
        missed = ", ".join(record.whole.missed)
        reasons.append(f"the whole model is {record.whole.verdict}: {missed}")
    if reasons:
        raise UntrustedError(f"--strict: {' '.join(reasons)}")
