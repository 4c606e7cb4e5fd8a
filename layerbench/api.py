"""The Python interface: `profile` and `time_layers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layerbench import devices, runner, zoo
from layerbench.assembly import assemble
from layerbench.defaults import FUNCTION_ITERATIONS, MEASURED_ITERATIONS, WARMUP_ITERATIONS
from layerbench.devices import Device
from layerbench.errors import UntrustedError, UsageError
from layerbench.live import LiveLayers, time_layers
from layerbench.progress import Progress
from layerbench.records import Profile
from layerbench.replication import measure_in_processes
from layerbench.samples import Run
from layerbench.workload import DType, Granularity, MemoryFormat, Mode, Plan, Workload
from layerbench.zoo import Built

__all__ = ["LiveLayers", "Measurement", "measure", "profile", "time_layers"]


@dataclass(frozen=True)
class Measurement:
    """A record and the samples it was made from, one run for each process."""

    profile: Profile
    runs: tuple[Run, ...]


def profile(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    warmup: int = WARMUP_ITERATIONS,
    iterations: int = MEASURED_ITERATIONS,
    function_iterations: int = FUNCTION_ITERATIONS,
    processes: int = 1,
    until: float | None = None,
    granularity: Granularity = "layers",
    dtype: DType = "float32",
    channels_last: bool = False,
    compile: bool = False,
    mode: Mode = "eval",
    seed: int = 0,
    weights: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Time a model, its blocks and its layers.

    Args:
        model: a model spec (``"resnet50"``, ``"timm:NAME"``, ``"package.module:callable"``,
            ``"file.py:callable"``) or a module, which is measured where it is and left as it was.
        input: a named input or a shape (``"pascal"``, ``"8x3x224x224"``); for a module also a
            tensor or a tuple of positional arguments. ``None`` takes the model family's usual one.
        batch: images per forward.
        device: ``"cpu"``, ``"cuda"``, ...; ``None`` takes the accelerator if there is one.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        warmup, iterations, function_iterations, processes, until, granularity: see `Plan`.
        dtype, channels_last, compile, mode, seed, weights: see `Workload`.
        strict: raise `UntrustedError` where the room or the whole model's verdict says no.
        progress: hears of each step.

    Returns:
        the record; times in seconds.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = Plan(
        warmup=_count("warmup", warmup, 0),
        iterations=_count("iterations", iterations, 1),
        function_iterations=_count("function_iterations", function_iterations, 0),
        processes=_count("processes", processes, 1),
        threads=None if threads is None else _count("threads", threads, 1),
        until=until,
        granularity=granularity,
    )
    memory_format: MemoryFormat = "channels_last" if channels_last else "contiguous"
    if isinstance(model, nn.Module):
        subject, where = _hand_over(model, input, batch, device, seed, memory_format)
        workload = zoo.describe(
            subject, memory_format=memory_format, mode=mode, seed=seed, compile=compile
        )
    else:
        if not (input is None or isinstance(input, str)):
            raise UsageError("a model given by name takes an input by name or shape, not a tensor")
        subject, where = None, devices.get(device)
        workload = zoo.resolve(
            model,
            input,
            batch=batch,
            dtype=dtype,
            memory_format=memory_format,
            mode=mode,
            seed=seed,
            weights=weights,
            compile=compile,
        )
    measured = measure(workload, plan, where, subject=subject, strict=strict, progress=progress)
    return measured.profile


def measure(
    workload: Workload,
    plan: Plan,
    device: Device,
    *,
    subject: Built | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure a workload by a plan and make its record; the samples come with it.

    Raises:
        LayerbenchError: as `profile`.
    """
    if plan.processes == 1:
        run = runner.measure(
            workload, plan, device, subject=subject, strict=strict, progress=progress
        )
        runs = [run]
    elif subject is not None:
        raise UsageError(
            "a module object cannot be handed to fresh processes: give a spec such as "
            "'package.module:callable' to measure with processes > 1"
        )
    else:
        name = str(device.torch_device)
        runs = measure_in_processes(workload, plan, name, strict=strict, progress=progress)
    record = assemble(workload, plan, runs)
    if strict:
        _insist(record)
    return Measurement(record, tuple(runs))


def _insist(record: Profile) -> None:
    reasons = list(record.environment.warnings)
    if record.whole.verdict != "stable":
        missed = ", ".join(record.whole.missed)
        reasons.append(f"the whole model is {record.whole.verdict}: {missed}")
    if reasons:
        raise UntrustedError(f"--strict: {' '.join(reasons)}")


def _count(name: str, value: int, least: int) -> int:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")
    return value


def _hand_over(
    model: nn.Module,
    given: str | torch.Tensor | tuple[Any, ...] | None,
    batch: int | None,
    device: str | None,
    seed: int,
    memory_format: MemoryFormat,
) -> tuple[Built, Device]:
    """A user's module with inputs on its own device."""
    where = devices.of_module(model)
    if device is not None and devices.get(device).torch_device.type != where.torch_device.type:
        raise UsageError(
            f"the module is on {where.kind}: move it to {device} first, it is measured where it is"
        )
    built = zoo.with_inputs(
        model,
        given,
        batch=batch,
        seed=seed,
        device=where.torch_device,
        memory_format=memory_format,
    )
    return built, where
