"""Memory of a model: measured, and predicted for a device that is not here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.api.bars import heard
from layerbench.api.inputs import bytes_of, optimizer_of, step_of, what_runs, where_it_runs
from layerbench.environment.cards import CardChoice
from layerbench.environment.devices import Device
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.environment.run_context import check_input_fits
from layerbench.profilers.memory.largest_batch import with_fit
from layerbench.profilers.memory.measured import profile_memory
from layerbench.profilers.memory.predicted import card_for, check_memory_fits, estimated
from layerbench.profilers.memory.run_for_gpu import run_for_gpu
from layerbench.profilers.peers.lines import check_lines
from layerbench.profilers.progress import Progress
from layerbench.records.memory import MemoryEstimate, MemoryReport, Optimizer
from layerbench.records.workload import DType, Precision, Workload
from layerbench.zoo import Built


@one_at_a_time
def memory(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    training: bool = False,
    optimizer: Optimizer | None = None,
    device: str | None = "cpu",
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    memlab: bool = False,
    lines: Sequence[str] = (),
) -> MemoryReport:
    """Memory of every module, measured in a real run.

    Args:
        model, input, batch, precision, dtype, channels_last, seed, weights, checkpoint, inputs: as
            in `profile`.
        training: run training steps instead of one forward.
        optimizer: of the training step; ``sgd`` if none is named.
        checkpoint_activations, gradient_accumulation: of the training step; as in
            `profile_training`.
        device: where a model given by name runs; a module is measured where it is.
        memlab: whether pytorch-memlab's account of the tensors stands in ``record.memlab``.
        lines: functions whose lines pytorch-memlab profiles, on a GPU: paths of modules, or
            ``package.module:callable``.

    Returns:
        the record, in bytes.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    chosen = optimizer_of(training, optimizer)
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        mode="train" if training else "eval",
        seed=seed,
        weights=weights,
        checkpoint=checkpoint,
        inputs=inputs,
        step=step_of(training, checkpoint_activations, gradient_accumulation),
    )
    return measure_memory(
        workload,
        where_it_runs(subject, device),
        optimizer=chosen,
        subject=subject,
        memlab=memlab,
        lines=lines,
    )


def measure_memory(
    workload: Workload,
    device: Device,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    memlab: bool = False,
    lines: Sequence[str] = (),
) -> MemoryReport:
    """Measure the memory of a workload on a device, unless its tensors cannot fit there.

    Raises:
        LayerbenchError: as `memory`.
    """
    check_lines(lines, device)
    if subject is None:
        check_input_fits(workload, device)
        check_memory_fits(workload, device, optimizer)
    return profile_memory(
        workload, device, optimizer=optimizer, subject=subject, memlab=memlab, lines=lines
    )


@one_at_a_time
def estimate_memory(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    device: CardChoice = "cuda",
    training: bool = False,
    optimizer: Optimizer | None = None,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    ddp: bool = False,
    gpu_memory: int | str | None = None,
    largest_batch: bool = True,
    progress: Progress | bool | None = None,
) -> MemoryEstimate:
    """Predict the memory that a model needs on a GPU, without one.

    Args:
        model, input, batch, precision, dtype, channels_last, seed, weights, checkpoint, inputs: as
            in `profile`.
        device: a card's name, such as ``"t4"``, however it is spelled, the path of a file that
            describes one, or a `layerbench.Card`; ``cuda`` for a GPU that is not named.
        training: a training step instead of one forward.
        optimizer: of the training step; ``sgd`` if none is named.
        checkpoint_activations, gradient_accumulation: of the training step; as in
            `profile_training`.
        ddp: one process of a training with DistributedDataParallel: its buckets count.
        gpu_memory: bytes, or a text such as ``"24GiB"``: the record then says whether it fits,
            and the largest batch that does. Of a card that is named it is known.
        largest_batch: look for the largest batch, which takes most of the time.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each prediction on
            the way to the largest batch.

    Returns:
        the record, in bytes: ``peak_bytes`` with an interval, ``by_category``, ``peak_owner``,
        ``rows``.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    card = card_for(device)
    chosen = optimizer_of(training, optimizer)
    size = None if gpu_memory is None else bytes_of(gpu_memory)
    if size is None and card is not None:
        size = card.memory_bytes
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        mode="train" if training else "eval",
        seed=seed,
        weights=weights,
        checkpoint=checkpoint,
        inputs=inputs,
        step=step_of(training, checkpoint_activations, gradient_accumulation),
        ddp=ddp,
    )
    run = run_for_gpu(workload, optimizer=chosen, subject=subject)
    estimate = estimated(workload, chosen, run, card)
    if size is None:
        return estimate
    with heard(progress) as listener:
        return with_fit(estimate, size, run=run, look=largest_batch, progress=listener)
