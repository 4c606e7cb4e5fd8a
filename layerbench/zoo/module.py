"""A module that the user passes in Python: its inputs, and their workload."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from layerbench.errors import BadInput, UsageError
from layerbench.records.workload import (
    AUTOCAST,
    FORMATS,
    JOINED,
    OWN_WEIGHTS,
    CompileMode,
    Precision,
    Workload,
    computed_in,
)
from layerbench.zoo import inputs
from layerbench.zoo.family import (
    Built,
    call_arguments,
    checked_workload,
    first_shape,
    random_input,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


def with_inputs(
    module: nn.Module,
    values: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None,
    *,
    batch: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    memory_format: str = "contiguous",
) -> Built:
    """Add inputs to a module; the module is not changed.

    A module with lazy layers that have not run yet is replaced by a copy that has.

    Args:
        module: the user's.
        values: an input spec, for a random input in the module's dtype; or ready inputs: a tensor,
            a tuple of positional arguments, a dict of keyword arguments. Ready ones are used
            as they are.
        batch: images per forward; must agree with the inputs.
        seed: of the random input.
        device: of the random input.
        memory_format: of the random input.

    Raises:
        BadInput: there is no input, it cannot be read, or its batch is not ``batch``.
        UsageError: ``batch`` is not positive.
    """
    from layerbench.zoo._formats import convert_value, input_format, number_formats
    from layerbench.zoo._lazy import made_ready

    if values is None:
        raise BadInput(
            "a module object needs an input: give a shape such as '1x3x224x224', a name "
            f"({', '.join(inputs.NAMED)}), or the inputs themselves"
        )
    if isinstance(values, str):
        shape = inputs.parse(values, batch).shape
        value = random_input(shape, seed).to(input_format(module))
        value = convert_value(value, number_formats(module, ()), memory_format)
        return made_ready(Built(module, (value.to(device),)))
    inputs.check_batch(batch)
    if _is_size(module, values):
        spec = "x".join(map(str, values))
        raise BadInput(f"{tuple(values)} are the inputs themselves: write a shape as '{spec}'")
    args, kwargs = call_arguments(values)
    built = Built(module, args, kwargs)
    if batch is not None and _shape(built)[:1] != (batch,):
        held = _shape(built)[:1] or ("nothing",)
        raise BadInput(f"the inputs hold a batch of {held[0]}, not of {batch}")
    return made_ready(built)


def _is_size(module: nn.Module, values: object) -> bool:
    """Whether these are whole numbers that the forward does not take, as other tools take sizes."""
    if not (isinstance(values, tuple) and values and all(type(value) is int for value in values)):
        return False
    try:
        signature(module.forward).bind(*values)
    except TypeError:
        return True
    except ValueError:  # one that has no signature, as those of TorchScript
        pass
    return False


def describe(
    built: Built,
    *,
    precision: Precision | None = None,
    memory_format: str = "contiguous",
    mode: str = "eval",
    seed: int = 0,
    compile: bool | CompileMode = False,
    cuda_graph: bool = False,
) -> Workload:
    """The workload of a module passed in Python: its class, and the shape of its input.

    Raises:
        UsageError: a mode or memory format that a workload cannot have, or a precision that the
            module would have to be converted to.
    """
    from layerbench.zoo._formats import number_formats

    shape = _shape(built)
    formats = number_formats(built.module, (built.args, built.kwargs))
    if precision and precision not in AUTOCAST and FORMATS[precision] not in formats.split(JOINED):
        raise UsageError(
            f"the module and its inputs are {formats}: convert them to {FORMATS[precision]} first, "
            "a module is measured as it is"
        )
    return checked_workload(
        model=_class_name(built.module),
        input="x".join(map(str, shape)) or "scalar",
        shape=shape,
        batch=shape[0] if shape else 1,
        dtype=formats,
        precision=computed_in(precision),
        memory_format=memory_format,
        mode=mode,
        seed=seed,
        weights=OWN_WEIGHTS,
        compile=compile,
        cuda_graph=cuda_graph,
    )


def _class_name(module: nn.Module) -> str:
    """Of the user's own class, where `torch.compile` has put one of its own around it."""
    while type(module).__name__ == "OptimizedModule":
        module = module._modules["_orig_mod"]  # type: ignore[assignment]
    return type(module).__name__


def _shape(built: Built) -> tuple[int, ...]:
    """Of the first input with a batch; empty where no input has one."""
    return first_shape((built.args, built.kwargs)) or ()


def not_a_module(value: object) -> str:
    """What to do with something that is no module, on one line."""
    kind = type(value).__name__
    if kind == "ExportedProgram":
        return "an ExportedProgram cannot be called: take its module, program.module()"
    if callable(value):
        return f"a {kind} is no torch.nn.Module: call it in the forward of one"
    return f"a {kind} is no torch.nn.Module, nor the name of a model"
