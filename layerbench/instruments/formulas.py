"""FLOPs of single operators that `torch.utils.flop_counter` has no formula for, or not for all.

The same work may reach the device as matrix products, as one fused operator, or as a library's
own: each formula here gives what the plain products would come to, so that the figure of a model
does not depend on how it ran. Of a sparse matrix the stored elements count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import sdpa_backward_flop_count

from layerbench.introspection.tensors import shape_of

Formula = Callable[[Sequence[Any], Any], int]
"""FLOPs from an operator's positional arguments and its output."""


# --- products of matrices ------------------------------------------------------------------


def _linear(args: Sequence[Any], output: torch.Tensor) -> int:
    return 2 * int(output.numel()) * shape_of(args[0])[-1]


def _mv(args: Sequence[Any], _: object) -> int:
    matrix = next(arg for arg in args if arg.dim() == 2)
    return 2 * _stored(matrix)


def _dot(args: Sequence[Any], _: object) -> int:
    return 2 * int(args[0].numel())


def _outer(_: Sequence[Any], output: torch.Tensor) -> int:
    return 2 * int(output.numel())


def _addbmm(args: Sequence[Any], _: object) -> int:
    batch, rows, inner = args[1].shape
    return 2 * int(batch * rows * inner * args[2].shape[-1])


def _product(first: int) -> Formula:
    """Of the matrices, or batches of them, that stand at two positions of the arguments."""

    def formula(args: Sequence[Any], _: object) -> int:
        one, other = args[first], args[first + 1]
        if one.layout is torch.strided and other.layout is torch.strided:
            return 2 * prod(shape_of(one)) * shape_of(other)[-1]
        return _sparse_product(one, other)

    return formula


def _matmul(args: Sequence[Any], output: torch.Tensor) -> int:
    """Of nested tensors, whose rows differ in length: the sum over their rows."""
    one, other = args[0], args[1]
    if one.is_nested:
        others = other.unbind() if other.is_nested else repeat(other)
        pairs = zip(one.unbind(), others, output.unbind(), strict=False)
        return sum(_matmul(pair, product) for *pair, product in pairs)
    return 2 * int(output.numel()) * shape_of(one)[-1]


def _sparse_product(one: torch.Tensor, other: torch.Tensor) -> int:
    if other.layout is torch.strided:
        return 2 * _stored(one) * shape_of(other)[-1]
    if one.layout is torch.strided:
        return 2 * shape_of(one)[-2] * _stored(other)
    # Each stored element meets those of the row of the other that its column names.
    columns = torch.bincount(_coordinates(one)[-1], minlength=one.shape[-1])
    rows = torch.bincount(_coordinates(other)[-2], minlength=other.shape[-2])
    return 2 * int((columns * rows).sum())


def _stored(tensor: torch.Tensor) -> int:
    if tensor.layout is torch.strided:
        return int(tensor.numel())
    values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    return int(values.numel())


def _coordinates(tensor: torch.Tensor) -> torch.Tensor:
    coordinates: torch.Tensor = tensor.to_sparse()._indices()
    return coordinates


def _sampled(args: Sequence[Any], _: object) -> int:
    """Only the elements that the first argument stores are worked out."""
    return 2 * _stored(args[0]) * shape_of(args[1])[-1]


def _grouped(args: Sequence[Any], output: torch.Tensor) -> int:
    """Each row, or each column, takes part in the product of one group."""
    inner = shape_of(args[0])[-1]
    jagged_inside = args[0].dim() == 2 and args[1].dim() == 2
    return 2 * prod(output.shape[-2:] if jagged_inside else output.shape) * inner


def _trilinear(args: Sequence[Any], _: object) -> int:
    """As two products: the first two operands over what they share, then the third.

    ``torch._trilinear`` multiplies three tensors, expanded by new dimensions, and sums.
    """
    one, middle, last = (_expanded(*pair) for pair in zip(args[:3], args[3:6], strict=True))
    space = [max(sizes) for sizes in zip(one, middle, last, strict=True)]
    shared = next((d for d in args[6] if last[d] == 1), None)
    elements = prod(space)
    return 2 * elements + (2 * elements // space[shared] if shared is not None else elements)


def _expanded(tensor: torch.Tensor, dimensions: Iterable[int]) -> list[int]:
    sizes = list(tensor.shape)
    for at in sorted(dimensions):
        sizes.insert(at, 1)
    return sizes


# --- convolutions --------------------------------------------------------------------------


def _convolved(elements: int, weight: Sequence[int], filters: int) -> int:
    """FLOPs of a convolution: each element (of a transposed one's input) meets one filter."""
    return 2 * elements * (prod(weight) // max(filters, 1))


def _conv(args: Sequence[Any], output: torch.Tensor) -> int:
    weight = tuple(args[1].shape)
    return _convolved(int(output.numel()), weight, _filters(weight, args[0]))


def _conv_transposed(args: Sequence[Any], _: object) -> int:
    weight = tuple(args[1].shape)
    return _convolved(int(args[0].numel()), weight, _filters(weight, args[0]))


def _conv_backward(args: Sequence[Any], _: object) -> int:
    """Each gradient that is wanted, of input and weight, is a product as large as the forward's.

    `torch.utils.flop_counter` counts the weight's as if there were one group.
    """
    gradient, image, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    places = image if transposed else gradient
    shape = tuple(weight.shape)
    return sum(map(bool, wanted[:2])) * _convolved(int(places.numel()), shape, shape[0])


def _filters(weight: Sequence[int], image: torch.Tensor) -> int:
    """How many there are; a library may hold the weight with its groups in a dimension apart."""
    return weight[0] * weight[1] if len(weight) > image.dim() else weight[0]


def _conv_time_first(args: Sequence[Any], output: torch.Tensor) -> int:
    width, inputs, _ = args[1].shape
    return 2 * int(output.numel()) * int(width * inputs)


def _packed_conv(args: Sequence[Any], output: torch.Tensor) -> int:
    weight = _unpacked(args[1])
    return _convolved(int(output.numel()), weight, weight[0])


def _packed_conv_transposed(args: Sequence[Any], _: object) -> int:
    weight = _unpacked(args[1])
    return _convolved(int(args[0].numel()), weight, weight[0])


def _unpacked(packed: Any) -> tuple[int, ...]:  # noqa: ANN401 - a script object
    """The shape of a weight that a library has packed."""
    weight = packed.unpack()[0]
    return tuple(weight.shape)


def _onednn_conv(args: Sequence[Any], output: torch.Tensor) -> int:
    """``onednn::qconv_pointwise``: input, its scale and zero point, weight."""
    weight = tuple(args[3].shape)
    return _convolved(int(output.numel()), weight, _filters(weight, args[0]))


# --- attention -----------------------------------------------------------------------------


def _sdpa(args: Sequence[Any], _: object) -> int:
    """Scores and their product with the values, for each head of the query."""
    query, key, value = (shape_of(arg) for arg in args[:3])
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _sdpa_backward(args: Sequence[Any], _: object) -> int:
    shapes = (tuple(arg.shape) for arg in args[:4])
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _attention_layer(batch: int, queries: int, keys: int, width: int) -> int:
    """In and out projection and the two products with the scores."""
    projections = 2 * batch * width * width * (2 * queries + 2 * keys)
    return projections + 4 * batch * queries * keys * width


def _native_multi_head_attention(args: Sequence[Any], _: object) -> int:
    batch, queries, width = shape_of(args[0])
    return _attention_layer(batch, queries, shape_of(args[1])[1], width)


def _transformer_encoder_layer(args: Sequence[Any], _: object) -> int:
    batch, length, width = shape_of(args[0])
    hidden = args[14].shape[0]  # ffn_weight_1
    feed_forward: int = 4 * batch * length * width * hidden
    return _attention_layer(batch, length, length, width) + feed_forward


# --- recurrent networks --------------------------------------------------------------------


def _tokens(data: torch.Tensor) -> int:
    """Steps of all sequences together, padded or packed."""
    return prod(data.shape[:-1])


def _rnn_layer(args: Sequence[Any], _: object) -> int:
    """``mkldnn_rnn_layer``: one layer in one direction; weights of input and of state."""
    return 2 * _tokens(args[0]) * int(args[1].numel() + args[2].numel())


def _rnn_layer_backward(args: Sequence[Any], output: object) -> int:
    return 2 * _rnn_layer(args, output)


def _rnn_of_weights(args: Sequence[Any], _: object) -> int:
    """``_cudnn_rnn``, ``miopen_rnn``: all layers, whose matrices each meet every token."""
    matrices = [weight for weight in args[1] if weight.dim() == 2]
    elements: int = sum(weight.numel() for weight in matrices)
    return 2 * _tokens(args[0]) * elements


def _packed_rnn(gates: int) -> Formula:
    """``quantized_lstm``, ``quantized_gru``: their weights do not say how large they are."""

    def formula(args: Sequence[Any], _: object) -> int:
        data = args[0]
        # A packed sequence brings its batch sizes in the second place.
        state, _, _, layers, _, _, bidirectional = (
            args[2:9] if isinstance(args[1], torch.Tensor) and args[1].dim() == 1 else args[1:8]
        )
        first = state[0] if isinstance(state, (list, tuple)) else state
        width, directions = first.shape[-1], 2 if bidirectional else 1
        inner: int = data.shape[-1] + (layers - 1) * width * directions + layers * width
        return 2 * _tokens(data) * directions * gates * int(width) * inner

    return formula


def _packed_cell(gates: int) -> Formula:
    def formula(args: Sequence[Any], _: object) -> int:
        state = args[1][0] if isinstance(args[1], (list, tuple)) else args[1]
        inner = args[0].shape[-1] + state.shape[-1]
        return 2 * gates * int(state.numel()) * int(inner)

    return formula


# --- by name -------------------------------------------------------------------------------

_NAMES: Sequence[tuple[Formula, str]] = (
    (_product(0), "aten.mm aten.bmm aten._int_mm aten._scaled_mm aten._scaled_mm_v2"),
    (_product(0), "aten._sparse_sparse_matmul aten._sparse_mm_reduce_impl quantized.matmul"),
    (_product(1), "aten.addmm aten.baddbmm aten._sparse_addmm aten._addmm_activation"),
    (_matmul, "aten.matmul"),
    (_mv, "aten.mv aten.addmv"),
    (_dot, "aten.dot aten.vdot"),
    (_outer, "aten.addr aten.ger"),
    (_addbmm, "aten.addbmm"),
    (_sampled, "aten.sparse_sampled_addmm"),
    (_grouped, "aten._grouped_mm aten._scaled_grouped_mm"),
    (_trilinear, "aten._trilinear"),
    (_linear, "aten.linear aten.mkldnn_linear mkldnn._linear_pointwise mkl._mkl_linear"),
    (_linear, "aten._weight_int8pack_mm aten._weight_int4pack_mm aten._dyn_quant_matmul_4bit"),
    (_linear, "aten._weight_int4pack_mm_for_cpu aten._sparse_semi_structured_linear"),
    (_linear, "aten.fbgemm_linear_int8_weight aten.fbgemm_linear_fp16_weight"),
    (_linear, "aten.fbgemm_linear_int8_weight_fp32_activation"),
    (_linear, "aten.fbgemm_linear_fp16_weight_fp32_activation prepacked.linear_clamp_run"),
    (_linear, "aten._wrapped_quantized_linear_prepacked onednn.qlinear_pointwise"),
    (_linear, "onednn.linear_dynamic_fp16 onednn.linear_relu_dynamic_fp16"),
    (_linear, "sparse.qlinear sparse.qlinear_relu sparse.qlinear_dynamic"),
    (_linear, "sparse.qlinear_relu_dynamic quantized.linear quantized.linear_relu"),
    (_linear, "quantized.linear_dynamic quantized.linear_relu_dynamic"),
    (_linear, "quantized.linear_dynamic_fp16 quantized.linear_relu_dynamic_fp16"),
    (_linear, "quantized.linear_dynamic_fp16_unpacked_weight quantized.linear_leaky_relu"),
    (_linear, "quantized.linear_tanh quantized.linear_with_input_q_dq_qweight_dq_output_fp32"),
    (_linear, "quantized.linear_with_input_q_dq_qweight_dq_relu_output_fp32"),
    (_packed_conv, "quantized.conv1d quantized.conv2d quantized.conv3d quantized.conv1d_relu"),
    (_packed_conv, "quantized.conv2d_relu quantized.conv3d_relu quantized.conv1d_dynamic"),
    (_packed_conv, "quantized.conv2d_dynamic quantized.conv3d_dynamic quantized.conv2d_add"),
    (_packed_conv, "quantized.conv2d_add_relu mkldnn_prepacked.conv2d_run"),
    (_packed_conv, "prepacked.conv2d_clamp_run"),
    (_packed_conv_transposed, "quantized.conv_transpose1d quantized.conv_transpose1d_dynamic"),
    (_packed_conv_transposed, "quantized.conv_transpose2d quantized.conv_transpose2d_dynamic"),
    (_packed_conv_transposed, "quantized.conv_transpose3d quantized.conv_transpose3d_dynamic"),
    (_packed_conv_transposed, "prepacked.conv2d_transpose_clamp_run"),
    (_onednn_conv, "onednn.qconv_pointwise onednn.qconv1d_pointwise onednn.qconv2d_pointwise"),
    (_onednn_conv, "onednn.qconv3d_pointwise"),
    (_conv, "aten.mkldnn_convolution mkldnn._convolution_pointwise aten.cudnn_convolution"),
    (_conv, "aten.cudnn_convolution_relu aten.cudnn_convolution_add_relu aten.thnn_conv2d"),
    (_conv, "aten.miopen_convolution aten.miopen_convolution_relu aten._mps_convolution"),
    (_conv, "aten.miopen_convolution_add_relu aten.miopen_depthwise_convolution"),
    (_conv, "aten._slow_conv2d_forward aten.slow_conv3d_forward aten.slow_conv3d"),
    (_conv, "aten.slow_conv_dilated2d aten.slow_conv_dilated3d aten._conv_depthwise2d"),
    (_conv, "aten.conv_depthwise3d aten._nnpack_spatial_convolution"),
    # Finding the bilinear samples is interpolation, which is free.
    (_conv, "torchvision.deform_conv2d"),
    (_conv_transposed, "aten.cudnn_convolution_transpose aten.miopen_convolution_transpose"),
    (_conv_transposed, "aten.slow_conv_transpose2d aten.slow_conv_transpose3d"),
    (_conv_transposed, "mkldnn._convolution_transpose_pointwise"),
    (_conv_time_first, "aten.conv_tbc"),
    (_conv_backward, "aten.convolution_backward"),
    (_sdpa, "aten._scaled_dot_product_flash_attention_for_cpu"),
    (_sdpa, "aten._scaled_dot_product_flash_attention"),
    (_sdpa, "aten._scaled_dot_product_efficient_attention"),
    (_sdpa, "aten._scaled_dot_product_cudnn_attention"),
    (_sdpa, "aten._scaled_dot_product_fused_attention_overrideable"),
    (_sdpa, "aten._scaled_dot_product_attention_math_for_mps"),
    (_sdpa_backward, "aten._scaled_dot_product_flash_attention_for_cpu_backward"),
    (_native_multi_head_attention, "aten._native_multi_head_attention"),
    (_native_multi_head_attention, "aten._triton_multi_head_attention"),
    (_transformer_encoder_layer, "aten._transformer_encoder_layer_fwd"),
    (_rnn_layer, "aten.mkldnn_rnn_layer"),
    (_rnn_layer_backward, "aten.mkldnn_rnn_layer_backward"),
    (_rnn_of_weights, "aten._cudnn_rnn aten.miopen_rnn"),
    (_packed_rnn(4), "aten.quantized_lstm"),
    (_packed_rnn(3), "aten.quantized_gru"),
    (_packed_cell(4), "aten.quantized_lstm_cell quantized.quantized_lstm_cell_dynamic"),
    (_packed_cell(3), "aten.quantized_gru_cell quantized.quantized_gru_cell_dynamic"),
    (_packed_cell(1), "aten.quantized_rnn_relu_cell aten.quantized_rnn_tanh_cell"),
    (_packed_cell(1), "quantized.quantized_rnn_relu_cell_dynamic"),
    (_packed_cell(1), "quantized.quantized_rnn_tanh_cell_dynamic"),
)
OWN: Mapping[str, Formula] = {name: formula for formula, names in _NAMES for name in names.split()}

HIGHER_ORDER: Mapping[str, Formula] = {"flex_attention": _sdpa}
"""Of operators that run functions; others are seen by what their functions run."""
