"""From a model spec and an input spec to a module and its inputs.

Each family of models is one file in this package with a ``FAMILY`` in it (see
`layerbench.zoo.family.Family`); a new file is found without being listed anywhere.
Importing this package loads no torch.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, get_args

from layerbench.errors import LayerbenchError, UnknownModel, UsageError, did_you_mean
from layerbench.records.workload import (
    FORMATS,
    OWN_WEIGHTS,
    DType,
    Precision,
    Workload,
    computed_in,
    named_format,
    precision_of,
)
from layerbench.registry import registered
from layerbench.zoo import inputs
from layerbench.zoo.callable import own_input
from layerbench.zoo.family import (
    Built,
    Family,
    checked_workload,
    random_input,
    seeded_on_cpu,
    weights_left_out,
)
from layerbench.zoo.module import describe, not_a_module, with_inputs

if TYPE_CHECKING:
    import torch

__all__ = [
    "SHORTHANDS",
    "Built",
    "Family",
    "build",
    "build_shapes",
    "chosen_precision",
    "describe",
    "families",
    "has_weights",
    "inputs_for",
    "model_names",
    "not_a_module",
    "resolve",
    "with_inputs",
]

_MOST_CLOSE_MATCHES = 3
_WEIGHTS = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".onnx", ".pkl", ".safetensors", ".tar")

# One word for a family's usual member.
SHORTHANDS = {
    "vit": "timm:vit_base_patch16_224",
    "deit": "timm:deit_base_patch16_224",
    "swin": "timm:swin_base_patch4_window7_224",
    "resnet": "timm:resnet50",
}


@functools.cache
def families() -> tuple[Family, ...]:
    """All families, in the order in which they may claim a model spec."""
    every: list[Family] = registered(__name__, __path__, "FAMILY", "layerbench.models")
    return tuple(sorted(every, key=lambda family: family.last_resort))


def model_names() -> list[str]:
    """Every model that can be listed; a family whose library is not installed has none."""
    return [name for family in families() for name in _names(family)]


def resolve(
    model: str,
    input: str | None = None,
    *,
    batch: int | None = None,
    precision: str | None = None,
    dtype: str | None = None,
    memory_format: str = "contiguous",
    mode: str = "eval",
    seed: int = 0,
    weights: str | None = None,
    compile: bool = False,
) -> Workload:
    """Check a model spec and an input spec, and return the workload.

    The model is not built, with one exception: a user's callable determines an input or a dtype
    that is not named. It is built without memory if possible.

    Args:
        model: a torchvision model, ``timm:NAME``, ``package.module:callable``,
            ``path/to/file.py:callable``, or one of `SHORTHANDS`.
        input: a named input or a shape (see `layerbench.zoo.inputs.parse`); ``None`` for the
            one the model is meant for.
        batch: images per forward; ``None`` for the input's own.
        precision: what is computed in, and so what floating parameters and inputs are converted
            to; ``None`` for float32, or the formats of a user's model.
        dtype: the older name of those precisions that convert: ``bfloat16`` is ``bf16``.
        memory_format: of the 4-D (and 5-D) parameters and inputs.
        mode: ``eval`` or ``train``.
        seed: of the weights and the inputs.
        weights: ``None`` for random ones, else the name the model's library has for them.
        compile: recorded only; `build` does not compile.

    Raises:
        UnknownModel: no such model; the message has close matches.
        ModelImportError: the user's callable cannot be imported or called.
        BadInput: the input cannot be read, or is missing.
        UsageError: any other argument that makes no sense.
    """
    inputs.check_batch(batch)
    _check_seed(seed)
    model = SHORTHANDS.get(model, model)
    family = _checked_family(model, weights)
    chosen = chosen_precision(precision, dtype)
    usual = input is None or (input == inputs.OWN and family.last_resort)
    brought = None
    if usual or chosen is None:
        with seeded_on_cpu(seed):
            brought = family.brought(model)
    if input is not None and not usual:
        spec = inputs.parse(input, batch)
    elif brought is not None:
        spec = own_input(model, brought, batch)
    else:
        with seeded_on_cpu(seed):
            spec = family.default_input(model, batch)
    formats = FORMATS[chosen] if chosen else _own_formats(brought, with_inputs=usual)
    return checked_workload(
        model=model,
        input=spec.name,
        shape=spec.shape,
        batch=spec.shape[0] if spec.shape else 1,
        dtype=formats,
        precision=computed_in(chosen),
        memory_format=memory_format,
        mode=mode,
        seed=seed,
        weights=OWN_WEIGHTS if family.last_resort else weights,
        compile=compile,
    )


def chosen_precision(precision: str | None, dtype: str | None) -> Precision | None:
    """The precision that was said, by its own name or by the format that it converts to.

    Raises:
        UsageError: there is no such, or two were said.
    """
    if dtype is not None and named_format(dtype) is None:
        raise UsageError(f"dtype takes {', '.join(get_args(DType))}, not {dtype!r}")
    if precision is None:
        return precision_of(dtype) if dtype else None
    if dtype is not None:
        raise UsageError(f"say the precision once: {precision}, or dtype {dtype}")
    known = next((name for name in FORMATS if name == precision), None)
    if known is None:
        raise UsageError(f"precision takes {', '.join(FORMATS)}, not {precision!r}")
    return known


def has_weights(model: str) -> bool:
    """Whether the model's library publishes trained weights for it.

    Raises:
        UnknownModel: no such model.
    """
    model = SHORTHANDS.get(model, model)
    return _checked_family(model, None).has_weights(model)


def build(workload: Workload, *, load_weights: bool = True) -> Built:
    """Build the workload's model and inputs on the CPU from the workload's seed.

    The caller's random generators are left as they were.

    Args:
        workload: what to build.
        load_weights: otherwise the model is as its weights configure it, with random ones.

    Raises:
        LayerbenchError: the weights cannot be loaded, the user's callable failed, or its model
            has tensors without values.
    """
    from layerbench.introspection.modules import buffers, parameters
    from layerbench.introspection.tensors import check_values
    from layerbench.zoo._formats import converted
    from layerbench.zoo._lazy import made_ready

    loading = nullcontext() if load_weights else weights_left_out()
    with seeded_on_cpu(workload.seed), loading:
        built = _family_of(workload.model).build(workload)
        check_values((*parameters(built.module), *buffers(built.module)))
        return made_ready(converted(built, workload))


def build_shapes(workload: Workload) -> Built:
    """Build the workload's model and inputs on the meta device: shapes without memory.

    Weights are not loaded; the model is as they configure it.

    Raises:
        LayerbenchError: the weights cannot be loaded, or the model does not take the size.
        Exception: from a constructor that needs the values of its weights.
    """
    from layerbench.zoo._formats import converted
    from layerbench.zoo._lazy import made_ready

    with seeded_on_cpu(workload.seed), weights_left_out():
        built = _family_of(workload.model).build_shapes(workload)
        return made_ready(converted(built, workload, "meta"))


def inputs_for(
    shape: tuple[int, ...],
    dtype: str = "float32",
    memory_format: str = "contiguous",
    seed: int = 0,
) -> torch.Tensor:
    """A seeded random input in [0, 1) on the CPU, for a module passed in Python."""
    from layerbench.zoo._formats import convert_value

    tensor: torch.Tensor = convert_value(random_input(shape, seed), dtype, memory_format)
    return tensor


def _family_of(model: str) -> Family:
    for family in families():
        if family.claims(model):
            return family
    raise UnknownModel(
        f"cannot read the model {model!r}: give a torchvision model's name, timm:NAME, "
        "package.module:callable or path/to/file.py:callable"
    )


def _checked_family(model: str, weights: str | None) -> Family:
    family = _family_of(model)
    try:
        family.check(model, weights)
    except UnknownModel as error:
        raise UnknownModel(_advice(model) or f"{error}{_close_matches(model)}") from None
    return family


def _own_formats(brought: Built | None, *, with_inputs: bool) -> str:
    """The number formats of a user's model; float32 for all other models."""
    from layerbench.zoo._formats import number_formats

    if brought is None:
        return "float32"
    return number_formats(brought.module, (brought.args, brought.kwargs) if with_inputs else ())


def _names(family: Family) -> list[str]:
    try:
        return family.names()
    except LayerbenchError:
        return []


def _advice(model: str) -> str:
    """The spec to use instead of a file, or of a module without its callable."""
    name = model.rpartition("/")[2]
    if name.endswith(_WEIGHTS):
        return (
            f"{name} holds weights and no code: name a function that builds the model and loads "
            "them, --model path/to/file.py:callable"
        )
    if name.endswith(".py"):
        return (
            f"{name} is a file: name the function in it that returns the model, or the model and "
            f"its inputs, --model {model}:callable"
        )
    if ":" in model:  # a family's, such as timm:resnet50.a1_in1k
        return ""
    if "/" in model or "\\" in model:
        return f"cannot read the model {model!r}: one of your own is path/to/file.py:callable"
    if "." in model:
        return f"no model is called {model!r}: a callable of a package of yours is {model}:callable"
    return ""


def _close_matches(model: str) -> str:
    close = did_you_mean(model, model_names(), _MOST_CLOSE_MATCHES)
    return f"; {close}" if close else ""


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UsageError(f"the seed must be between 0 and 2**63 - 1, not {seed}")
