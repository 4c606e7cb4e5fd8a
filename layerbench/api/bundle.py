"""Everything about the layers of a model in one go: time, structure and memory in one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.api.bars import heard
from layerbench.api.inputs import plan_of, what_runs, where_it_runs
from layerbench.api.memory import measure_memory
from layerbench.api.timing import measure
from layerbench.environment.devices import Device
from layerbench.errors import LayerbenchError, first_line
from layerbench.profilers.progress import Progress, Silent
from layerbench.profilers.structure import profile_structure
from layerbench.records.bundle import Bundle
from layerbench.records.defaults import MEASURED_ITERATIONS, WARMUP_ITERATIONS
from layerbench.records.kinds import Record
from layerbench.records.timing import Profile
from layerbench.records.workload import DType, Precision
from layerbench.zoo import Built


def bundle(
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
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    ceilings: bool = True,
    isolate: bool = False,
    energy: bool = False,
    strict: bool = False,
    progress: Progress | bool | None = None,
) -> Bundle:
    """Time, structure and memory of every layer, joined in one record.

    Args:
        model, input, batch, device, threads, precision, dtype, channels_last, seed, weights,
            checkpoint, inputs: as in `profile`.
        warmup, iterations, function_iterations, processes, until: as in `profile`.
        ceilings, isolate, energy, strict, progress: as in `profile`.

    Returns:
        the record: ``profile``, ``structure`` and ``memory``, of which the latter two may be
        ``absent`` with a reason.

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
        mode="eval",
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
        return with_structure_and_memory(
            measured.profile, where, subject=subject, progress=listener
        )


def with_structure_and_memory(
    profile: Profile,
    device: Device,
    *,
    subject: Built | None = None,
    progress: Progress | None = None,
    keep_interrupted: bool = False,
) -> Bundle:
    """A profile with the structure and the memory of the same workload, which are made here.

    The times come first: they are worth most, and nothing else has used the process's memory yet.
    What cannot be made besides them is absent, with the reason.

    Args:
        profile: the times.
        device: that they were measured on.
        subject: that ran, if it was handed over.
        progress: hears of each.
        keep_interrupted: whether an interrupt keeps what there is.

    Raises:
        LayerbenchError: as `bundle`.
    """
    workload = profile.workload
    makers: dict[str, Callable[[], Record]] = {
        "structure": lambda: profile_structure(workload, subject),
        "memory": lambda: measure_memory(workload, device, subject=subject),
    }
    if profile.stop == "interrupted":
        return Bundle(profile=profile, absent=dict.fromkeys(makers, INTERRUPTED))
    made, absent = _besides(makers, progress or Silent(), keep_interrupted)
    return Bundle.model_validate({"profile": profile, **made, "absent": absent})


INTERRUPTED = "interrupted"
"""Why something is absent that somebody did not wait for."""


def _besides(
    makers: Mapping[str, Callable[[], Record]], progress: Progress, keep_interrupted: bool
) -> tuple[dict[str, Record], dict[str, str]]:
    """What can be made besides the times, and why the rest cannot."""
    made: dict[str, Record] = {}
    absent: dict[str, str] = {}
    for what, make in makers.items():
        if INTERRUPTED in absent.values():
            absent[what] = INTERRUPTED
            continue
        progress.step(what, 0, 1)
        try:
            made[what] = make()
        except (LayerbenchError, RuntimeError, MemoryError) as error:
            absent[what] = first_line(error)
        except KeyboardInterrupt:
            if not keep_interrupted:
                raise
            absent[what] = INTERRUPTED
        progress.step(what, 1, 1)
    return made, absent
