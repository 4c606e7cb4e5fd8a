"""FLOPs of each operator that runs, and the operators without a formula.

The convention is the one of papers and of torchvision's published figures: matrix products,
convolutions and attention count, a multiply-add as two. Element-wise functions, normalization,
pooling, softmax, interpolation and moving data do not. The formulas are those of
`torch.utils.flop_counter`, and those in `layerbench.instruments.formulas`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.nested._internal.nested_tensor import NestedTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from layerbench.instruments.autocast_seen import as_called
from layerbench.instruments.formulas import HIGHER_ORDER, OWN
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.operators import operator_name, run_seen

Counted = Callable[[Sequence[Any], dict[str, Any], Any], int]
"""FLOPs from an operator's positional and keyword arguments and its output."""


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    Attributes:
        flops: by the call running, a node of ``running.calls``; ``None`` outside all.
        uncounted: calls by (operator, path) of what has no formula and is not free by convention.
        out_of_step: whether random numbers with values were drawn after some without, which a real
            run would have drawn first from the same generator.

    Known limitations: what a scripted module fuses is not seen. Attention counts all scores,
    also those that a mask hides.
    """

    supports_higher_order_operators = True

    def __init__(self, running: RunningModule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[int | None] = Counter()
        self.uncounted: Counter[tuple[str, str | None]] = Counter()
        self.out_of_step = False
        self._drawn_without_values = False
        self._running = running
        self._lock = threading.Lock()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload; its type is private to torch
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        if NestedTensor in types:
            # Its rows differ in length. It runs what there is to do on the values of all of them.
            return NotImplemented
        with as_called(func):
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        if isinstance(func, HigherOrderOperator):
            return self._run_higher_order(func, args, keywords)
        formula = formula_of(func)
        if formula is None and not _free(func):
            # An operator made of others: those are seen instead.
            with self:
                output = func.decompose(*args, **keywords)
            if output is not NotImplemented:
                return output
        output = func(*args, **keywords)
        if _draws(func) and keywords.get("generator") is None:
            self._note_draw(output)
        if formula is not None:
            self._count(operator_name(func), formula, args, keywords, output)
        elif not _free(func) and _computes(func, output):
            self._list(operator_name(func))
        return output

    def _run_higher_order(
        self, func: HigherOrderOperator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - whatever it returns
        """Count the operator by its formula, or else the operators that its functions run."""
        name = operator_name(func)
        own = HIGHER_ORDER.get(name)
        if own is not None:
            output = func(*args, **kwargs)
            self._count(name, lambda a, _, out: own(a, out), args, kwargs, output)
            return output
        return run_seen(func, args, kwargs, self)

    def _count(
        self,
        name: str,
        formula: Counted,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: object,
    ) -> None:
        """Add an operator's FLOPs; one whose formula does not fit how it was called is listed."""
        try:
            flops = formula(args, kwargs, output)
        except Exception:
            self._list(name)
        else:
            with self._lock:
                self.flops[self._running.place()] += flops

    def _note_draw(self, output: object) -> None:
        if any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_leaves(output)):
            self._drawn_without_values = True
        elif self._drawn_without_values:
            self.out_of_step = True

    def _list(self, name: str) -> None:
        with self._lock:
            self.uncounted[name, self._running.path()] += 1


def formula_of(func: Any) -> Counted | None:  # noqa: ANN401 - an OpOverload
    """FLOPs of an operator from its arguments, keyword arguments and output; ``None`` without.

    Also one that the user has registered with `torch.utils.flop_counter`.
    """
    own = OWN.get(operator_name(func))
    if own is not None:
        return lambda args, _kwargs, output: own(args, output)
    listed = flop_registry.get(func.overloadpacket)
    if listed is None:
        return None
    return lambda args, kwargs, output: int(listed(*args, **kwargs, out_val=output))


@cache
def _draws(func: Any) -> bool:  # noqa: ANN401 - an OpOverload
    return torch.Tag.nondeterministic_seeded in func.tags


@cache
def _free(func: Any) -> bool:  # noqa: ANN401 - an OpOverload
    """Whether an operator does no product that the convention counts."""
    if _is_elementwise_or_view(func):
        return True
    namespace, _, name = operator_name(func).partition(".")
    # Not all in-place and out variants carry their operator's tags.
    plain = name.removesuffix("_")
    names = (plain, plain.removesuffix("_backward"))
    if namespace in _FREE_NAMESPACES or any(one in _FREE.get(namespace, ()) for one in names):
        return True
    if namespace == "quantized_decomposed":
        return not plain.startswith("mixed_")
    if namespace == "quantized":
        return not plain.startswith(("conv", "linear", "matmul", "quantized_"))
    return namespace == "aten" and (
        plain.startswith(_FREE_BEGINNINGS) or _is_variant_of_free(func, plain)
    )


def _is_elementwise_or_view(func: Any) -> bool:  # noqa: ANN401 - an OpOverload
    return torch.Tag.pointwise in func.tags or bool(getattr(func, "is_view", False))


def _is_variant_of_free(func: Any, plain: str) -> bool:  # noqa: ANN401 - an OpOverload
    """Whether the operator that this one is an in-place variant of is element-wise or a view."""
    packet = getattr(torch.ops.aten, plain, None)
    if packet is None or packet is func.overloadpacket:
        return False
    return any(_is_elementwise_or_view(getattr(packet, name)) for name in packet.overloads())


def _computes(func: Any, output: object) -> bool:  # noqa: ANN401 - an OpOverload
    """Whether an operator returns or changes floating-point numbers; others do no FLOPs."""
    floating = any(
        isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        for leaf in tree_leaves(output)
    )
    return floating or func._schema.is_mutable or _is_quantized(output)


def _is_quantized(output: object) -> bool:
    return any(isinstance(leaf, torch.Tensor) and leaf.is_quantized for leaf in tree_leaves(output))


# --- what the convention does not count ---------------------------------------------------

_FREE_BEGINNINGS = (
    "_adaptive_avg_pool",
    "_foreach_",
    "_fused_adam",
    "_fused_sgd",
    "_native_batch_norm",
    "_scatter",
    "_sparse_coo_tensor",
    "_sparse_compressed_tensor",
    "_sparse_log_softmax",
    "_sparse_softmax",
    "_sparse_sum",
    "_thnn_",
    "_to_sparse",
    "_upsample",
    "_unsafe_",
    "adaptive_",
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy",
    "cudnn_batch_norm",
    "embedding",
    "empty",
    "fake_quantize",
    "fill",
    "fractional_max_pool",
    "full",
    "grid_sampler",
    "huber_loss",
    "index",
    "l1_loss",
    "max_pool",
    "max_unpool",
    "mkldnn_adaptive_avg_pool",
    "mkldnn_max_pool",
    "mkldnn_reorder",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "native_batch_norm",
    "native_dropout",
    "native_group_norm",
    "native_layer_norm",
    "new_",
    "ones",
    "quantize_per",
    "quantized_batch_norm",
    "quantized_max_pool",
    "rand",
    "reflection_pad",
    "replication_pad",
    "scatter",
    "segment_reduce",
    "select",
    "slice",
    "smooth_l1_loss",
    "soft_margin_loss",
    "sparse_resize",
    "unique",
    "upsample_",
    "zero",
)
_FREE_IN_ATEN = """
_efficientzerotensor _prelu_kernel bartlett_window blackman_window hamming_window hann_window
kaiser_window prelu
_assert_async _assert_scalar _assert_tensor_metadata _coalesce _coalesced _conj
_convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo
_cudnn_init_dropout_state _embedding_bag _empty_affine_quantized
_empty_per_channel_affine_quantized _fused_dropout _fused_moving_avg_obs_fq_helper
_fused_rms_norm _indices _jagged_to_padded_dense_forward _local_scalar_dense _log_softmax
_log_softmax_backward_data _make_per_channel_quantized_tensor
_make_per_tensor_quantized_tensor _mkldnn_reshape _mkldnn_transpose _nested_from_padded
_nested_from_padded_and_nested_example _nested_get_values _nested_tensor_from_mask
_nested_tensor_from_tensor_list _nested_tensor_size _nested_tensor_softmax_with_shape
_nested_tensor_storage_offsets _nested_view_from_buffer _nested_view_from_buffer_copy
_pack_padded_sequence _pad_packed_sequence _padded_dense_to_jagged_forward _reshape_alias
_safe_softmax _sample_dirichlet _softmax _softmax_backward_data _sparse_mask_projection
_standard_gamma _to_copy _to_cpu _to_dense _transform_bias_rescale_qkv _unique2
_unsafe_view _weight_norm_interface alias all amax amin aminmax any arange argmax argmin
argsort as_strided bernoulli bincount binomial block_diag bucketize cat cauchy
ccol_indices channel_shuffle choose_qparams choose_qparams_optimized clone coalesce col2im
col_indices concat constant_pad_nd copy copy_sparse_to_sparse count_nonzero crow_indices
cummax cumprod cumsum dequantize detach diag_embed diagonal_copy diagonal_scatter equal
expand_copy exponential eye flip floor_divide fold frobenius_norm gather geometric glu
hardswish histc im2col indices int_repr is_nonzero is_pinned is_same_size item kthvalue
lift lift_fresh lift_fresh_copy linalg_cross linalg_vector_norm linspace log_normal
log_softmax logcumsumexp logspace logsumexp masked_fill masked_scatter masked_select max
mean median min mode multinomial nansum narrow_copy nll_loss2d_backward nll_loss2d_forward
nll_loss_backward nll_loss_forward nonzero nonzero_static norm normal permute_copy
pixel_shuffle pixel_unshuffle poisson polar prod put q_per_channel_scales
quantize_per_tensor random renorm repeat repeat_interleave resize resize_as rms_norm roll
rot90 row_indices rrelu_with_noise scalar_tensor searchsorted set softmax sort sparse_mask
split_copy split_with_sizes_copy stack std std_mean sum swapaxes sym_constrain_range
sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride t_copy take
to to_dense to_mkldnn to_padded_tensor to_sparse topk trace transpose_copy tril
tril_indices triu triu_indices unfold_copy uniform unsafe_split unsqueeze_copy values var
var_mean view_copy where
""".split()  # noqa: SIM905 - a name a line would bury what matters
_FREE_NAMESPACES = frozenset({"prim", "prims", "profiler", "rngprims"})
_FREE = {
    "torchvision": frozenset({"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"}),
    "aten": frozenset(_FREE_IN_ATEN),
}
