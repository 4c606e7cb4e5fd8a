"""Kinds of operators: those of one kind take times that depend on the same things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from layerbench.introspection.tensors import shape_of

Kind = Literal[
    "convolution",
    "grouped convolution",
    "depthwise convolution",
    "product",
    "batched product",
    "attention",
    "recurrence",
    "batch norm",
    "batch norm in training",
    "layer norm",
    "group norm",
    "softmax",
    "pooling",
    "reduction",
    "resampling",
    "indexing",
    "copy",
    "elementwise",
    "optimizer",
    "interpolation",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONVOLUTIONS = ("convolution", "convolution_backward", "cudnn_convolution")
_PARTS: tuple[tuple[str, Kind], ...] = (
    ("attention", "attention"),
    ("layer_norm", "layer norm"),
    ("rms_norm", "layer norm"),
    ("group_norm", "group norm"),
    ("softmax", "softmax"),
    ("pool", "pooling"),
    ("upsample_bi", "interpolation"),
    ("upsample_linear", "interpolation"),
    ("upsample_tri", "interpolation"),
    ("upsample", "resampling"),
    ("grid_sampler", "resampling"),
    ("_rnn", "recurrence"),
    ("lstm", "recurrence"),
    ("gru", "recurrence"),
)
"""What a name has in it, and the kind it is of; the first that fits."""

_NAMES: dict[str, Kind] = {
    **dict.fromkeys(("mm", "addmm", "linear", "_addmm_activation", "mv", "addmv"), "product"),
    **dict.fromkeys(("bmm", "baddbmm"), "batched product"),
    **dict.fromkeys(
        (
            "_to_copy", "clone", "copy_", "cat", "stack", "contiguous", "roll", "constant_pad_nd",
            "pixel_shuffle", "pixel_unshuffle", "repeat", "im2col", "col2im", "_reshape_copy",
            "fill_", "zeros_like", "new_zeros", "zero_", "split_with_sizes_copy", "flip",
            "reflection_pad2d", "slice_backward", "select_backward", "unfold_backward", "zeros",
            "ones", "ones_like", "full", "full_like", "arange", "scalar_tensor",
        ),
        "copy",
    ),
    **dict.fromkeys(
        (
            "sum", "mean", "amax", "amin", "max", "min", "var", "var_mean", "std", "norm",
            "linalg_vector_norm", "argmax", "argmin", "any", "all", "cumsum", "topk", "sort",
            "prod", "logsumexp", "nll_loss_forward", "nll_loss_backward",
        ),
        "reduction",
    ),
    **dict.fromkeys(
        (
            "index", "index_select", "gather", "embedding", "index_put", "index_put_", "scatter",
            "scatter_add", "index_add", "embedding_dense_backward", "_index_put_impl_",
        ),
        "indexing",
    ),
}  # fmt: skip


def kind_of(name: str, args: Sequence[Any]) -> Kind:
    """The kind of an operator.

    Args:
        name: such as ``aten.convolution``.
        args: its positional arguments.
    """
    plain = name.rpartition(".")[2]
    if plain in _CONVOLUTIONS:
        return _of_convolution(plain, args)
    if "batch_norm" in plain:
        return "batch norm in training" if _trains(plain, args) else "batch norm"
    if plain in _NAMES:
        return _NAMES[plain]
    return next((kind for part, kind in _PARTS if part in plain), "elementwise")


def _of_convolution(name: str, args: Sequence[Any]) -> Kind:
    backward = name.endswith("_backward")
    input = args[1] if backward else args[0]
    groups = int(args[9] if backward else args[8])
    if groups == 1:
        return "convolution"
    return "depthwise convolution" if groups == shape_of(input)[1] else "grouped convolution"


def _trains(name: str, args: Sequence[Any]) -> bool:
    if name.endswith("_backward"):
        return True
    return name == "native_batch_norm" and len(args) > 5 and bool(args[5])
