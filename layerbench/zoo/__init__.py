"""From a model spec and an input spec to a module and its inputs.

Each family of models is one file in this package with a ``FAMILY`` in it (see
`layerbench.zoo.family.Family`); a new file is found without being listed anywhere.
Importing this package loads no torch.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from layerbench.errors import LayerbenchError, UnknownModel, UsageError, did_you_mean
from layerbench.records.workload import (
    FORMATS,
    OWN_WEIGHTS,
    CompileMode,
    DType,
    Precision,
    ReadFile,
    Workload,
    computed_in,
    named_format,
    precision_of,
)
from layerbench.registry import registered
from layerbench.zoo._model_files import ModelFile
from layerbench.zoo.callable import file_input, own_input
from layerbench.zoo.family import (
    Built,
    Family,
    checked_workload,
    random_input,
    seeded_on_cpu,
    weights_left_out,
)
from layerbench.zoo.inputs import OWN, check_batch, parse
from layerbench.zoo.module import describe, not_a_module, with_inputs

if TYPE_CHECKING:
    import torch

    from layerbench.zoo._input_files import Arguments

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
# What to do with a file that is no model, by its ending.
_FILES = {
    (".pt", ".pth", ".bin", ".ckpt", ".safetensors"): (
        "holds weights and no code: name the model that they are of, and load them onto it, "
        "--model resnet50 --checkpoint {}"
    ),
    (".onnx", ".pkl", ".tar", ".h5", ".tflite"): (
        "cannot be read as a model: name a function that builds it, "
        "--model path/to/file.py:callable"
    ),
    (".py",): (
        "is a file: name the function in it that returns the model, or the model and its inputs, "
        "--model {}:callable"
    ),
}

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
    compile: bool | CompileMode = False,
    cuda_graph: bool = False,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
) -> Workload:
    """Check a model spec and an input spec, and return the workload.

    The model is built, without memory if possible, only where it has to say something: a user's
    own an input or a dtype that is not named, any model whether the weights of a file are its.

    Args:
        model: a torchvision model, ``timm:NAME``, ``hf:NAME``,
            ``smp:ARCHITECTURE/ENCODER``, ``open_clip:NAME``, ``package.module:callable``,
            ``path/to/file.py:callable``, a file of ``torch.export.save`` or ``torch.jit.save``, or
            one of `SHORTHANDS`.
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
        checkpoint: a file of weights, which `build` loads onto the model.
        inputs: a file of inputs, in place of ``input``.
        compile: a mode of `torch.compile`, or whether it is the usual one; recorded only, `build`
            does not compile.
        cuda_graph: whether the forward is captured as a CUDA graph; recorded only.

    Raises:
        UnknownModel: no such model; the message has close matches.
        ModelImportError: the user's callable cannot be imported or called.
        BadInput: the input cannot be read, or is missing.
        UsageError: any other argument that makes no sense.
    """
    check_batch(batch)
    _check_seed(seed)
    _check_said_once(input, inputs, weights, checkpoint)
    model = SHORTHANDS.get(model, model)
    family = _checked_family(model, weights)
    chosen = chosen_precision(precision, dtype)
    given = None if inputs is None else _given(inputs, seed)
    usual = given is None and (input is None or (input == OWN and family.last_resort))
    brought = None
    if usual or chosen is None:
        with seeded_on_cpu(seed):
            brought = family.brought(model)
    if given is not None:
        spec = file_input(*given, batch)
    elif input is not None and not usual:
        spec = parse(input, batch)
    elif brought is not None:
        spec = own_input(model, brought, batch)
    else:
        with seeded_on_cpu(seed):
            spec = family.default_input(model, batch)
    of_inputs = given[1] if given else (brought.args, brought.kwargs) if usual and brought else ()
    workload = checked_workload(
        model=model,
        input=spec.name,
        shape=spec.shape,
        batch=spec.shape[0] if spec.shape else 1,
        dtype=FORMATS[chosen] if chosen else _own_formats(brought, of_inputs),
        precision=computed_in(chosen),
        memory_format=memory_format,
        mode=mode,
        seed=seed,
        weights=OWN_WEIGHTS if family.last_resort else weights,
        compile=compile,
        cuda_graph=cuda_graph,
        inputs=given[0] if given else None,
        file=family.file(model) if isinstance(family, ModelFile) else None,
    )
    return workload if checkpoint is None else _with_checkpoint(workload, checkpoint)


def _given(path: str | Path, seed: int) -> tuple[ReadFile, Arguments]:
    """A file of inputs, and those: without memory where it states shapes alone."""
    from layerbench.zoo import _files, _input_files

    file = _files.read(path, _input_files.KINDS, "--inputs")
    return file, _input_files.read(file, seed, shapes=True)


def _with_checkpoint(workload: Workload, path: str | Path) -> Workload:
    """The workload with the weights of a file, if they are this model's."""
    from layerbench.zoo import _checkpoints

    try:
        built = build_shapes(workload)
    except LayerbenchError:
        raise
    except Exception:  # it needs values
        built = build(workload, load_weights=False)
    checkpoint = _checkpoints.fitted(path, built.module, workload.model)
    return workload.model_copy(update={"checkpoint": checkpoint})


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
        built = made_ready(converted(_with_given(built, workload), workload))
        if workload.checkpoint is not None and load_weights:
            from layerbench.zoo import _checkpoints

            _checkpoints.load(workload.checkpoint, built.module, workload.model)
        return built


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
        built = _with_given(built, workload, shapes=True)
        return made_ready(converted(built, workload, "meta"))


def _with_given(built: Built, workload: Workload, *, shapes: bool = False) -> Built:
    """The model with the inputs of the workload's file, if it has one."""
    if workload.inputs is None:
        return built
    from layerbench.zoo import _input_files

    return _input_files.given(built, workload.inputs, workload.seed, shapes=shapes)


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
        f"cannot read the model {model!r}: give a torchvision model's name, timm:NAME, hf:NAME, "
        "smp:ARCHITECTURE/ENCODER, open_clip:NAME, package.module:callable or "
        "path/to/file.py:callable"
    )


def _checked_family(model: str, weights: str | None) -> Family:
    family = _family_of(model)
    try:
        family.check(model, weights)
    except UnknownModel as error:
        raise UnknownModel(_advice(model) or f"{error}{_close_matches(model)}") from None
    return family


def _own_formats(brought: Built | None, inputs: Any) -> str:  # noqa: ANN401 - any nesting
    """The number formats of a user's model and its inputs; float32 for all other models."""
    from layerbench.zoo._formats import number_formats

    return "float32" if brought is None else number_formats(brought.module, inputs)


def _names(family: Family) -> list[str]:
    try:
        return family.names()
    except LayerbenchError:
        return []


def _advice(model: str) -> str:
    """The spec to use instead of a file, or of a module without its callable."""
    name = model.rpartition("/")[2]
    for endings, what in _FILES.items():
        if name.endswith(endings):
            return f"{name} {what.format(model)}"
    if ":" in model:  # a family's, such as timm:resnet50.a1_in1k
        return ""
    if "/" in model or "\\" in model:
        return f"cannot read the model {model!r}: one of your own is path/to/file.py:callable"
    if "." in model:
        return f"no model is called {model!r}: a callable of a package of yours is {model}:callable"
    return ""


def _close_matches(model: str) -> str:
    # Of transformers the names alone take seconds.
    asked = [_family_of(model)] if ":" in model else [f for f in families() if f.name != "hf"]
    names = [name for family in asked for name in _names(family)]
    close = did_you_mean(model, names, _MOST_CLOSE_MATCHES)
    return f"; {close}" if close else ""


def _check_said_once(
    input: str | None,
    inputs: str | Path | None,
    weights: str | None,
    checkpoint: str | Path | None,
) -> None:
    if input is not None and inputs is not None:
        raise UsageError(f"say the input once: --input {input}, or --inputs {inputs}")
    if weights is not None and checkpoint is not None:
        raise UsageError(f"say the weights once: --weights {weights}, or --checkpoint {checkpoint}")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UsageError(f"the seed must be between 0 and 2**63 - 1, not {seed}")
