"""FLOPs of each operator that runs, and the operators whose arithmetic nobody has a formula for.

The convention is the one of papers and of torchvision's published figures: matrix products,
convolutions and attention count, a multiply-add as two. Element-wise functions, normalization,
pooling, softmax, interpolation and moving data do not. The formulas are those of
`torch.utils.flop_counter`; what it lacks is added here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_flop_count

from layerbench.instruments.running import RunningModule

Formula = Callable[[Sequence[Any], Any], int]
"""FLOPs from an operator's positional arguments and its output."""


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    Attributes:
        flops: by the call running, a node of ``running.calls``; ``None`` outside all.
        uncounted: calls by (operator, path) of what has no formula and is not free by convention.

    Known limitations: what a scripted module fuses is not seen. Attention counts all scores,
    also those that a mask hides.
    """

    def __init__(self, running: RunningModule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[int | None] = Counter()
        self.uncounted: Counter[tuple[str, str | None]] = Counter()
        self._running = running

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload; its type is private to torch
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        del types
        given = kwargs or {}
        formula = _formula(func)
        if formula is None and not _free(func):
            # An operator made of others: those are seen instead.
            with self:
                output = func.decompose(*args, **given)
            if output is not NotImplemented:
                return output
        output = func(*args, **given)
        if formula is not None:
            self.flops[self._running.place()] += formula(args, given, output)
        elif not _free(func):
            self.uncounted[operator_name(func), self._running.path()] += 1
        return output


def operator_name(func: Any) -> str:  # noqa: ANN401 - an OpOverload
    """``aten.convolution``: the operator without its overload."""
    return str(func.overloadpacket._qualified_op_name).replace("::", ".")


@cache
def _formula(func: Any) -> Callable[..., int] | None:  # noqa: ANN401 - an OpOverload
    own = _OWN.get(operator_name(func))
    if own is not None:
        return lambda args, _kwargs, output: own(args, output)
    listed = flop_registry.get(func.overloadpacket)
    if listed is None:
        return None
    return lambda args, kwargs, output: int(listed(*args, **kwargs, out_val=output))


@cache
def _free(func: Any) -> bool:  # noqa: ANN401 - an OpOverload
    """Whether an operator does no product that the convention counts."""
    if torch.Tag.pointwise in func.tags or getattr(func, "is_view", False):
        return True
    namespace, _, name = operator_name(func).partition(".")
    # Not all in-place and out variants carry their operator's tags.
    plain = name.removesuffix("_")
    return plain in _FREE.get(namespace, ()) or (
        namespace == "aten" and plain.startswith(_FREE_BEGINNINGS)
    )


# --- formulas that torch.utils.flop_counter lacks -----------------------------------------


def _deform_conv2d(args: Sequence[Any], output: torch.Tensor) -> int:
    """That of the convolution; finding the bilinear samples is interpolation, which is free."""
    return conv_flop_count(list(args[0].shape), list(args[1].shape), list(output.shape))


def _mv(args: Sequence[Any], _: object) -> int:
    matrix = next(arg for arg in args if arg.dim() == 2)
    return 2 * int(matrix.numel())


def _dot(args: Sequence[Any], _: object) -> int:
    return 2 * int(args[0].numel())


def _linear(args: Sequence[Any], output: torch.Tensor) -> int:
    return 2 * int(output.numel()) * int(args[0].shape[-1])


def _addbmm(args: Sequence[Any], _: object) -> int:
    batch, rows, inner = args[1].shape
    return 2 * int(batch * rows * inner * args[2].shape[-1])


def _sdpa(args: Sequence[Any], _: object) -> int:
    query, key, value = (arg.shape for arg in args[:3])
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_layer(batch: int, queries: int, keys: int, width: int) -> int:
    """In and out projection and the two products with the scores."""
    projections = 2 * batch * width * width * (2 * queries + 2 * keys)
    return projections + 4 * batch * queries * keys * width


def _native_multi_head_attention(args: Sequence[Any], _: object) -> int:
    batch, queries, width = args[0].shape
    return _attention_layer(batch, queries, args[1].shape[1], width)


def _transformer_encoder_layer(args: Sequence[Any], _: object) -> int:
    batch, length, width = args[0].shape
    hidden = args[14].shape[0]  # ffn_weight_1
    feed_forward: int = 4 * batch * length * width * hidden
    return _attention_layer(batch, length, length, width) + feed_forward


_OWN: dict[str, Formula] = {
    "torchvision.deform_conv2d": _deform_conv2d,
    "aten.mv": _mv,
    "aten.addmv": _mv,
    "aten.dot": _dot,
    "aten.vdot": _dot,
    "aten.linear": _linear,
    "aten.mkldnn_linear": _linear,
    "aten._addmm_activation": lambda args, output: 2 * prod(args[1].shape) * output.shape[-1],
    "aten.addbmm": _addbmm,
    "aten._scaled_dot_product_flash_attention_for_cpu": _sdpa,
    "aten._scaled_dot_product_fused_attention_overrideable": _sdpa,
    "aten._native_multi_head_attention": _native_multi_head_attention,
    "aten._transformer_encoder_layer_fwd": _transformer_encoder_layer,
}

# --- what the convention does not count ---------------------------------------------------

_FREE_BEGINNINGS = (
    "_adaptive_avg_pool",
    "_foreach_",
    "_fused_adam",
    "_fused_sgd",
    "_native_batch_norm",
    "_upsample",
    "_unsafe_",
    "adaptive_",
    "avg_pool",
    "batch_norm",
    "cudnn_batch_norm",
    "embedding",
    "empty",
    "fill",
    "fractional_max_pool",
    "full",
    "grid_sampler",
    "index",
    "max_pool",
    "max_unpool",
    "native_batch_norm",
    "native_dropout",
    "native_group_norm",
    "native_layer_norm",
    "new_",
    "ones",
    "rand",
    "reflection_pad",
    "replication_pad",
    "scatter",
    "select",
    "slice",
    "unique",
    "upsample_",
    "zero",
)
_FREE_IN_ATEN = """
_assert_async _assert_scalar _conj _fused_dropout _fused_moving_avg_obs_fq_helper
_fused_rms_norm _local_scalar_dense _log_softmax _log_softmax_backward_data _reshape_alias
_safe_softmax _softmax _softmax_backward_data _to_copy _unique2 _unsafe_view
_weight_norm_interface alias all amax amin aminmax any arange argmax argmin argsort
as_strided bernoulli bincount bucketize cat channel_shuffle clone col2im constant_pad_nd
copy count_nonzero cummax cumprod cumsum dequantize detach diagonal_copy equal expand_copy
eye flip floor_divide fold frobenius_norm gather glu hardswish histc im2col is_nonzero
is_pinned is_same_size item kthvalue lift lift_fresh lift_fresh_copy linalg_vector_norm
linspace log_softmax logcumsumexp logspace logsumexp masked_fill masked_scatter
masked_select max mean median min mode multinomial nansum narrow_copy nll_loss2d_backward
nll_loss2d_forward nll_loss_backward nll_loss_forward nonzero nonzero_static norm normal
permute_copy pixel_shuffle pixel_unshuffle polar prod put q_per_channel_scales
quantize_per_tensor random renorm repeat repeat_interleave resize resize_as rms_norm roll
rot90 rrelu_with_noise scalar_tensor searchsorted set softmax sort split_copy
split_with_sizes_copy stack std std_mean sum sym_numel sym_size sym_storage_offset
sym_stride t_copy take to topk trace tril tril_indices triu triu_indices unfold_copy uniform
unsafe_split unsqueeze_copy var var_mean view_copy where
""".split()  # noqa: SIM905 - a name a line would bury what matters
_FREE = {
    "prim": frozenset({"device"}),
    "prims": frozenset({"convert_element_type", "iota"}),
    "torchvision": frozenset({"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"}),
    "quantized": frozenset({"add", "add_relu", "cat", "mul"}),
    "aten": frozenset(_FREE_IN_ATEN),
}
