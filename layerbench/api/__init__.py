"""The Python interface: time, structure, and memory measured or predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench import zoo
from layerbench.analysis.aggregation import assemble
from layerbench.analysis.comparison import THRESHOLD, check_same_input, judge
from layerbench.analysis.paired import of_rounds
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.run_context import refuse_too_large
from layerbench.errors import UntrustedError, UsageError
from layerbench.introspection.modules import buffers, parameters
from layerbench.profilers import timing
from layerbench.profilers.memory.largest_batch import with_fit
from layerbench.profilers.memory.measured import weigh
from layerbench.profilers.memory.predicted import check_device, predict, refuse_hopeless
from layerbench.profilers.memory.traced_run import check_optimizer
from layerbench.profilers.paired import Task, measure_pair
from layerbench.profilers.processes import Job, measure_in_processes, measure_pair_in_processes
from layerbench.profilers.progress import Progress
from layerbench.profilers.structure import dissect
from layerbench.profilers.sweep import run_sweep
from layerbench.profilers.training_step import profile_step
from layerbench.profilers.user_loop import LiveLayers, time_layers
from layerbench.records import (
    Comparison,
    MemoryEstimate,
    MemoryReport,
    Precision,
    Profile,
    Structure,
    Sweep,
    TrainingForecast,
    TrainingProfile,
    Unreadable,
)
from layerbench.records.defaults import (
    MEASURED_ITERATIONS,
    MOST_PIXELS,
    TRAINING_ITERATIONS,
    TRAINING_WARMUP,
    WARMUP_ITERATIONS,
)
from layerbench.records.memory import Optimizer
from layerbench.records.samples import Run
from layerbench.records.workload import DType, Granularity, MemoryFormat, Mode, Plan, Workload
from layerbench.training.classification.estimate import Extent, forecast
from layerbench.training.classification.recipes import recipe_for
from layerbench.training.classification.run import Trained, Where, run_training
from layerbench.units import check_bytes, parse_bytes
from layerbench.zoo import Built

__all__ = [
    "LiveComparison",
    "LiveLayers",
    "Measurement",
    "compare_live",
    "estimate_memory",
    "estimate_training_time",
    "measure",
    "measure_live",
    "measure_memory",
    "memory",
    "profile",
    "profile_training",
    "structure",
    "sweep",
    "time_layers",
    "train",
]


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
    function_iterations: int | None = None,
    processes: int = 1,
    until: float | None = None,
    granularity: Granularity = "layers",
    dtype: DType | None = None,
    channels_last: bool = False,
    compile: bool = False,
    mode: Mode = "eval",
    seed: int = 0,
    weights: str | None = None,
    ceilings: bool = False,
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
        ceilings: measure the device's own afterwards, for a roofline (`Profile.ceilings`).
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
        **_function_iterations(function_iterations),
        processes=_count("processes", processes, 1),
        threads=_threads(threads),
        until=until,
        granularity=granularity,
    )
    workload, subject = _what_runs(
        model,
        input,
        batch=batch,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        compile=compile,
        mode=mode,
        seed=seed,
        weights=weights,
    )
    where = devices.get(device) if subject is None else devices.of_module(subject.module)
    measured = measure(
        workload,
        plan,
        where,
        subject=subject,
        ceilings=ceilings,
        strict=strict,
        progress=progress,
    )
    return measured.profile


def structure(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    mode: Mode = "eval",
    seed: int = 0,
    weights: str | None = None,
) -> Structure:
    """What a model is made of: shapes, parameters and FLOPs of every module.

    Nothing is allocated and nothing computed, unless the model needs its tensors' values.

    Args:
        model, input, batch, dtype, channels_last, mode, seed, weights: as in `profile`.

    Returns:
        the record; a multiply-add is 2 FLOPs.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    workload, subject = _what_runs(
        model,
        input,
        batch=batch,
        dtype=dtype,
        channels_last=channels_last,
        mode=mode,
        seed=seed,
        weights=weights,
    )
    return dissect(workload, subject)


def memory(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    training: bool = False,
    optimizer: Optimizer | None = None,
    device: str | None = "cpu",
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
) -> MemoryReport:
    """Memory of every module, measured in a real run.

    Args:
        model, input, batch, dtype, channels_last, seed, weights: as in `profile`.
        training: run training steps instead of one forward.
        optimizer: of the training step; ``sgd`` if none is named.
        device: where a model given by name runs; a module is measured where it is.

    Returns:
        the record, in bytes.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    chosen = _optimizer(training, optimizer)
    workload, subject = _what_runs(
        model,
        input,
        batch=batch,
        dtype=dtype,
        channels_last=channels_last,
        mode="train" if training else "eval",
        seed=seed,
        weights=weights,
    )
    where = devices.get(device) if subject is None else devices.of_module(subject.module)
    return measure_memory(workload, where, optimizer=chosen, subject=subject)


def measure_memory(
    workload: Workload,
    device: Device,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
) -> MemoryReport:
    """Measure the memory of a workload on a device, unless its tensors cannot fit there.

    Raises:
        LayerbenchError: as `memory`.
    """
    if subject is None:
        refuse_too_large(workload, device, subject)
        refuse_hopeless(workload, device, optimizer)
    return weigh(workload, device, optimizer=optimizer, subject=subject)


def estimate_memory(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    device: str = "cuda",
    training: bool = False,
    optimizer: Optimizer | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    gpu_memory: int | str | None = None,
    progress: Progress | None = None,
) -> MemoryEstimate:
    """Predict the memory that a model needs on a GPU, without one.

    Args:
        model, input, batch, dtype, channels_last, seed, weights: as in `profile`.
        device: ``cuda``.
        training: a training step instead of one forward.
        optimizer: of the training step; ``sgd`` if none is named.
        gpu_memory: bytes, or a text such as ``"24GiB"``: the record then says whether it fits,
            and the largest batch that does.
        progress: hears of each prediction on the way to the largest batch.

    Returns:
        the record, in bytes: ``peak_bytes`` with an interval, ``by_category``, ``peak_owner``,
        ``rows``.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    check_device(device)
    chosen = _optimizer(training, optimizer)
    size = None if gpu_memory is None else _bytes(gpu_memory)
    workload, subject = _what_runs(
        model,
        input,
        batch=batch,
        dtype=dtype,
        channels_last=channels_last,
        mode="train" if training else "eval",
        seed=seed,
        weights=weights,
    )
    estimate = predict(workload, optimizer=chosen, subject=subject)
    if size is None:
        return estimate
    return with_fit(estimate, size, progress=progress)


def train(
    model: str,
    phase: int = 2,
    *,
    data: str | None = None,
    data_dir: str | Path = "data",
    download: bool = False,
    size: tuple[int, int] | None = None,
    pretrained: bool | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup_epochs: float | None = None,
    patience: int | None = None,
    precision: Precision = "float32",
    limit: int | None = None,
    samples: int | None = None,
    channels_last: bool = False,
    unreadable: Unreadable = "fatal",
    seed: int = 0,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 0,
    output_dir: str | Path = "outputs",
    resume: bool | str | Path = False,
    checkpoint_minutes: float = 10.0,
    points: bool = True,
    most_pixels: int = MOST_PIXELS,
    progress: Progress | None = None,
) -> Trained:
    """Train or fine-tune a classifier, and write what a run writes.

    Args:
        model: a model spec.
        phase: 1 trains on ImageNet-1K from scratch, 2 fine-tunes on CIFAR-100; what it decides
            can be said otherwise by the arguments that follow.
        data, size, pretrained, batch, epochs, lr, weight_decay, warmup_epochs, patience,
            precision, limit, samples, channels_last, unreadable, seed: see `Recipe`; ``None``
            means the phase's usual. A patience of 0 never stops early.
        device, data_dir, download, workers, threads, output_dir, resume, checkpoint_minutes,
            points, most_pixels: see `layerbench.training.classification.run.Where`.
        progress: hears of each step.

    Returns:
        the record, the folder and the model.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    recipe = recipe_for(
        model,
        phase,
        pretrained=pretrained,
        size=size,
        data=data,
        batch=batch,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        patience=patience,
        precision=precision,
        limit=limit,
        samples=samples,
        channels_last=channels_last,
        unreadable=unreadable,
        seed=seed,
    )
    where = Where(
        device=device,
        data=Path(data_dir),
        outputs=Path(output_dir),
        download=download,
        workers=_count("workers", workers, 0),
        threads=_threads(threads),
        resume=Path(resume) if isinstance(resume, str) else resume,
        checkpoint_minutes=checkpoint_minutes,
        points=points,
        most_pixels=_count("most_pixels", most_pixels, 1),
    )
    return run_training(recipe, where, progress=progress)


def estimate_training_time(
    model: str,
    *,
    data: str = "synthetic",
    data_dir: str | Path = "data",
    download: bool = False,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    samples: int | None = None,
    val_samples: int | None = None,
    epochs: int = 3,
    precision: Precision = "float32",
    channels_last: bool = False,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 0,
    warmup: int = 5,
    steps: int = 40,
    seconds: float = 20.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainingForecast:
    """Measure some steps of a training and say how long all of it will take, with an interval.

    Args:
        model: a model spec.
        data, data_dir, download, size, batch, epochs, precision, channels_last, device, threads,
            workers, seed: as in `train`.
        samples, val_samples: images an epoch trains on and validates; ``None`` for as many as the
            data set has. Where only ``samples`` is given, nothing is validated.
        warmup, steps: steps that do not count, and the fewest that are measured.
        seconds: that are measured at least.
        progress: hears of each step.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    if samples is not None:
        _count("samples", samples, 1)
        val_samples = val_samples or 0
    recipe = recipe_for(
        model,
        pretrained=False,
        size=size,
        data=data,
        batch=batch,
        epochs=epochs,
        precision=precision,
        channels_last=channels_last,
        seed=seed,
    )
    extent = Extent(
        samples, val_samples, _count("warmup", warmup, 0), _count("steps", steps, 2), seconds
    )
    where = Where(
        device=device,
        data=Path(data_dir),
        download=download,
        workers=_count("workers", workers, 0),
        threads=_threads(threads),
    )
    return forecast(recipe, extent, where, progress=progress)


def sweep(
    models: Sequence[str],
    *,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32),
    sizes: Sequence[int] | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seconds: float = 20.0,
    runs: str | Path | None = None,
    progress: Progress | None = None,
    so_far: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Latency, memory and FLOPs of models over input sizes and batch sizes.

    Args:
        models: model specs.
        batches: images a forward; each climb ends at the first that does not fit.
        sizes: heights and widths; ``None`` for what each model is meant for.
        dtype, channels_last, device, threads: as in `profile`.
        seconds: for each point, about.
        runs: a folder with finished trainings.
        progress: hears of each point.
        so_far: gets the record after each model and size but the last, its notes say what is to
            come: an hour's work need not be lost.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    return run_sweep(
        models,
        sorted(_count("batches", batch, 1) for batch in batches),
        None if sizes is None else [_count("sizes", size, 1) for size in sizes],
        devices.get(device),
        dtype=dtype,
        memory_format="channels_last" if channels_last else "contiguous",
        threads=_threads(threads),
        seconds=seconds,
        runs=None if runs is None else Path(runs),
        progress=progress,
        so_far=so_far,
    )


def _bytes(size: int | str) -> int:
    if isinstance(size, str):
        return parse_bytes(size)
    check_bytes(size, size)
    return size


def _threads(threads: int | None) -> int | None:
    return None if threads is None else _count("threads", threads, 1)


def _optimizer(training: bool, optimizer: Optimizer | None) -> Optimizer | None:
    if optimizer is not None and not training:
        raise UsageError("an optimizer belongs to a training step: pass training=True")
    check_optimizer(optimizer)
    return (optimizer or "sgd") if training else None


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
        ceilings: measure the device's own too, once, after all rounds of all processes.

    Raises:
        LayerbenchError: as `profile`.
    """
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
    elif subject is not None:
        raise UsageError(_NO_HANDING_OVER)
    else:
        name = str(device.torch_device)
        runs = measure_in_processes(
            workload,
            plan,
            name,
            strict=strict,
            progress=progress,
            keep_interrupted=keep_interrupted,
        )
    record = assemble(workload, plan, runs)
    if strict:
        _insist(record)
    if ceilings and record.stop != "interrupted":
        found = timing.ceilings(workload, plan, device)
        record = record.model_copy(update={"ceilings": found})
    return Measurement(record, tuple(runs))


def profile_training(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    optimizer: Optimizer = "sgd",
    device: str | None = None,
    threads: int | None = None,
    warmup: int = TRAINING_WARMUP,
    iterations: int = TRAINING_ITERATIONS,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> TrainingProfile:
    """Take a training step apart: by phase, and forward and backward by module.

    Args:
        model, input, batch, device, threads, dtype, channels_last, seed, weights: as in
            `profile`. A module that is handed over trains, and comes back as it was.
        optimizer: one of `layerbench.profilers.memory.traced_run.OPTIMIZERS`.
        warmup, iterations: rounds of one untouched and one instrumented step.
        strict: raise `UntrustedError` where the machine is busy.
        progress: hears of each round.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = Plan(
        warmup=_count("warmup", warmup, 0),
        iterations=_count("iterations", iterations, 1),
        threads=_threads(threads),
        function_iterations=0,
    )
    workload, subject = _what_runs(
        model,
        input,
        batch=batch,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        mode="train",
        seed=seed,
        weights=weights,
    )
    where = devices.get(device) if subject is None else devices.of_module(subject.module)
    return profile_step(
        workload,
        plan,
        where,
        optimizer=optimizer,
        subject=subject,
        progress=progress,
        strict=strict,
    )


@dataclass(frozen=True)
class LiveComparison:
    """Two workloads measured in turn: the comparison, and what each side's record would be."""

    comparison: Comparison
    baseline: Measurement
    contender: Measurement


def compare_live(
    baseline: str | nn.Module,
    contender: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | None = None,
    *,
    batch: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    warmup: int = WARMUP_ITERATIONS,
    iterations: int = MEASURED_ITERATIONS,
    processes: int = 1,
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two models forward by forward in turn, and compare them.

    Args:
        baseline, contender: model specs or modules, as in `profile`, on the same input.
        input, batch, device, threads, warmup: as in `profile`, for both.
        iterations: measured rounds; each runs both, untouched and instrumented.
        processes: fresh processes to repeat it in; only for models given by name.
        threshold: changes up to this are the same (0.05 for 5 %).
        progress: hears of each step.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    plan = Plan(
        warmup=_count("warmup", warmup, 0),
        iterations=_count("iterations", iterations, 1),
        processes=_count("processes", processes, 1),
        threads=_threads(threads),
    )
    tasks, subjects = [], []
    for model in (baseline, contender):
        workload, subject = _what_runs(
            model,
            input,
            batch=batch,
            device=device,
            dtype=None,
            channels_last=False,
            mode="eval",
            seed=0,
        )
        where = devices.get(device) if subject is None else devices.of_module(subject.module)
        tasks.append(Task(workload, plan, where))
        subjects.append(subject)
    found = measure_live(
        (tasks[0], tasks[1]),
        names=(tasks[0].workload.model, tasks[1].workload.model),
        subjects=(subjects[0], subjects[1]),
        threshold=threshold,
        progress=progress,
    )
    return found.comparison


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
        UntrustedError: ``strict``, and the machine was too busy to tell.
        LayerbenchError: as `profile`.
    """
    check_same_input(tasks[0].workload, tasks[1].workload, names)
    processes = tasks[0].plan.processes
    if processes == 1:
        pair = measure_pair(tasks, subjects=subjects, strict=strict, progress=progress)
        pairs = [pair]
    elif any(subject is not None for subject in subjects):
        raise UsageError(_NO_HANDING_OVER)
    else:
        first, second = (
            Job(workload=task.workload, plan=task.plan, device=str(task.device.torch_device))
            for task in tasks
        )
        pairs = measure_pair_in_processes(
            (first, second), processes, strict=strict, progress=progress
        )
    before, after = (
        Measurement(assemble(task.workload, task.plan, runs), tuple(runs))
        for task, runs in zip(tasks, zip(*pairs, strict=True), strict=True)
    )
    evidence = of_rounds(pairs, tasks[0].workload.seed)
    comparison = judge(before.profile, after.profile, evidence, names=names, threshold=threshold)
    if strict and comparison.void:
        raise UntrustedError(f"--strict: {comparison.void}")
    return LiveComparison(comparison, before, after)


_NO_HANDING_OVER = (
    "a module object cannot be handed to fresh processes: give a spec such as "
    "'package.module:callable' to measure with processes > 1"
)


def _insist(record: Profile) -> None:
    reasons = list(record.environment.warnings)
    if record.whole.verdict != "stable":
        missed = ", ".join(record.whole.missed)
        reasons.append(f"the whole model is {record.whole.verdict}: {missed}")
    if reasons:
        raise UntrustedError(f"--strict: {' '.join(reasons)}")


def _function_iterations(count: int | None) -> dict[str, int]:
    """Left to the plan where nobody says."""
    name = "function_iterations"
    return {} if count is None else {name: _count(name, count, 0)}


def _count(name: str, value: int, least: int) -> int:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")
    return value


def _what_runs(
    model: str | nn.Module,
    given: str | torch.Tensor | tuple[Any, ...] | None,
    *,
    batch: int | None,
    dtype: DType | None,
    channels_last: bool,
    mode: Mode,
    seed: int,
    device: str | None = None,
    compile: bool = False,
    weights: str | None = None,
) -> tuple[Workload, Built | None]:
    """The workload, and the user's module with its inputs if one was handed over."""
    memory_format: MemoryFormat = "channels_last" if channels_last else "contiguous"
    if isinstance(model, nn.Module):
        subject = _hand_over(model, given, batch, device, seed, memory_format)
        workload = zoo.describe(
            subject, memory_format=memory_format, mode=mode, seed=seed, compile=compile
        )
        return workload, subject
    if not isinstance(model, str):
        raise UsageError(zoo.not_a_module(model))
    if not (given is None or isinstance(given, str)):
        raise UsageError("a model given by name takes an input by name or shape, not a tensor")
    workload = zoo.resolve(
        model,
        given,
        batch=batch,
        dtype=dtype,
        memory_format=memory_format,
        mode=mode,
        seed=seed,
        weights=weights,
        compile=compile,
    )
    return workload, None


def _hand_over(
    model: nn.Module,
    given: str | torch.Tensor | tuple[Any, ...] | None,
    batch: int | None,
    device: str | None,
    seed: int,
    memory_format: MemoryFormat,
) -> Built:
    """A user's module with inputs on its own device, which may be ``meta``."""
    tensors = (*parameters(model), *buffers(model))
    if any(hasattr(tensor, "device_mesh") for tensor in tensors):
        raise UsageError(
            "the module's tensors are shared out among processes (fully_shard, DTensor): hand it "
            "over before they are, or time it with layerbench.time_layers in a loop of your own"
        )
    where = tensors[0].device if tensors else torch.device("cpu")
    if device is not None and devices.get(device).torch_device.type != where.type:
        raise UsageError(
            f"the module is on {where.type}: move it to {device} first, it is measured where it is"
        )
    return zoo.with_inputs(
        model,
        given,
        batch=batch,
        seed=seed,
        device=where,
        memory_format=memory_format,
    )
