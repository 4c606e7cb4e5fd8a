"""What the calls share: arguments checked, and the subject that runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.errors import UsageError, at_least
from layerbench.introspection.modules import buffers, parameters
from layerbench.introspection.nested import tensors_in_plain
from layerbench.profilers.optimizers import check_optimizer
from layerbench.records.memory import Optimizer
from layerbench.records.options import checked
from layerbench.records.workload import (
    PLAIN_STEP,
    CompileMode,
    DType,
    MemoryFormat,
    Mode,
    Plan,
    Precision,
    StepOptions,
    Workload,
)
from layerbench.units import check_bytes, parse_bytes
from layerbench.zoo import Built


def bytes_of(size: int | str) -> int:
    """A size in bytes, or as text such as ``24GiB``; `UsageError` where it makes no sense."""
    if isinstance(size, str):
        return parse_bytes(size)
    check_bytes(size, size)
    return size


# The least that each number of a plan may be.
_LEAST = {"warmup": 0, "iterations": 1, "function_iterations": 0, "processes": 1, "threads": 1}


def plan_of(**numbers: Any) -> Plan:  # noqa: ANN401 - as the plan has them
    """The plan with these numbers; those that are ``None`` are left to it.

    Raises:
        UsageError: one is less than it may be.
    """
    said = {name: value for name, value in numbers.items() if value is not None}
    for name, least in _LEAST.items():
        if name in said:
            at_least(name, said[name], least)
    return Plan(**said)


def where_it_runs(subject: Built | None, device: str | None) -> Device:
    """The device of a name, or that which a module handed over is on, or else its inputs."""
    if subject is None:
        return devices.get(device)
    return devices.of_module(subject.module, (subject.args, subject.kwargs))


def threads_of(threads: int | None) -> int | None:
    """The number of threads, or `UsageError` where it is less than 1."""
    return None if threads is None else at_least("threads", threads, 1)


TRAINING = "training=True"
"""How most calls are asked for a training step."""


def optimizer_of(
    training: bool, optimizer: Optimizer | None, asked: str = TRAINING
) -> Optimizer | None:
    """The optimizer of a training step, SGD where none is named; none of an inference.

    Args:
        training: whether there is such a step.
        optimizer: its name, if one was said.
        asked: how the call is asked for a training step.

    Raises:
        UsageError: one is named without training, or there is no such.
    """
    if optimizer is not None and not training:
        raise UsageError(f"an optimizer belongs to a training step: pass {asked}")
    check_optimizer(optimizer)
    return (optimizer or "sgd") if training else None


def step_of(
    training: bool,
    checkpoint_activations: Sequence[str] | None,
    gradient_accumulation: int,
    asked: str = TRAINING,
) -> StepOptions:
    """How training steps are made.

    Args:
        training: whether there are any.
        checkpoint_activations, gradient_accumulation: as in `profile_training`.
        asked: how the call is asked for a training step.

    Raises:
        UsageError: something is said of them without training, or makes no sense.
    """
    if isinstance(checkpoint_activations, str):
        checkpoint_activations = (checkpoint_activations,)
    values = {
        "checkpoint_activations": checkpoint_activations,
        "gradient_accumulation": gradient_accumulation,
    }
    step = checked(StepOptions, values)
    if step != PLAIN_STEP and not training:
        raise UsageError(
            "checkpoint_activations and gradient_accumulation belong to a training step: pass "
            f"{asked}"
        )
    return step


def what_runs(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None,
    *,
    batch: int | None,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool,
    mode: Mode,
    seed: int,
    device: str | None = None,
    compile: bool | CompileMode = False,
    cuda_graph: bool = False,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    step: StepOptions = PLAIN_STEP,
    ddp: bool = False,
) -> tuple[Workload, Built | None]:
    """The workload, and the user's module with its inputs if one was handed over."""
    if ddp and mode != "train":
        raise UsageError(f"ddp belongs to a training step: pass {TRAINING}")
    memory_format: MemoryFormat = "channels_last" if channels_last else "contiguous"
    if isinstance(model, nn.Module):
        if checkpoint is not None or inputs is not None:
            raise UsageError(
                "a module object has its weights, and takes its inputs as they are: checkpoint "
                "and inputs are for models by name"
            )
        subject = _hand_over(model, input, batch, device, seed, memory_format)
        workload = zoo.describe(
            subject,
            precision=zoo.chosen_precision(precision, dtype),
            memory_format=memory_format,
            mode=mode,
            seed=seed,
            compile=compile,
            cuda_graph=cuda_graph,
        )
        return workload.with_step(step, ddp=ddp), subject
    if not isinstance(model, str):
        raise UsageError(zoo.not_a_module(model))
    if not (input is None or isinstance(input, str)):
        raise UsageError("a model given by name takes an input by name or shape, not a tensor")
    workload = zoo.resolve(
        model,
        input,
        batch=batch,
        precision=precision,
        dtype=dtype,
        memory_format=memory_format,
        mode=mode,
        seed=seed,
        weights=weights,
        compile=compile,
        cuda_graph=cuda_graph,
        checkpoint=checkpoint,
        inputs=inputs,
    )
    return workload.with_step(step, ddp=ddp), None


def _without_parameters(input: object, device: str | None) -> torch.device:
    """Where a module without parameters runs: where its inputs are, else where it is asked to."""
    for tensor in tensors_in_plain(input):
        return tensor.device
    return devices.get(device or "cpu").torch_device


def _hand_over(
    model: nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None,
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
    where = tensors[0].device if tensors else _without_parameters(input, device)
    if device is not None and devices.get(device).torch_device.type != where.type:
        raise UsageError(
            f"the module is on {where.type}: move it to {device} first, it is measured where it is"
        )
    return zoo.with_inputs(
        model,
        input,
        batch=batch,
        seed=seed,
        device=where,
        memory_format=memory_format,
    )
