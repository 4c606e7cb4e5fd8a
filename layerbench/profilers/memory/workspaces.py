"""What libraries and the driver take besides tensors: stated terms, each with bounds.

Nobody without the device knows which of its kernels cuDNN will choose. The figure is that of the
kernels it is known to prefer on GPUs with tensor cores; the bounds run from none to the largest
workspace of an engine that could be chosen. Sources stand in docs/mem.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any, NamedTuple

import torch

from layerbench.instruments.storage_tracker import KernelMemory
from layerbench.introspection.tensors import shape_of
from layerbench.profilers.memory.cudnn_plans import Convolution, Kind
from layerbench.records.memory import Workspace

MIB = 2**20

# PyTorch's CublasHandlePool.cpp: :4096:2:16:8, and 32 MiB on GPUs of compute capability 9.0 and
# later. One for the thread of the forward, one for autograd's.
CUBLAS = KernelMemory(bytes=8_519_680, low=0, high=32 * MIB)
CUBLAS_FROM_HOPPER = 32 * MIB

# Context, kernels and library handles: 256 to 1000 MiB have been reported, and it grows with what
# is used.
CONTEXT = Workspace(
    name="context",
    bytes=450 * MIB,
    low=250 * MIB,
    high=1000 * MIB,
    inside=False,
    why="the driver's context, loaded kernels and library handles; differs by card and driver",
)

# The most that a convolution in a single forward has been seen to take where an engine
# with a large workspace was chosen (docs/mem.md).
LARGEST_SEEN = 256 * MIB

# As much of that as the interval for a named card spans; chosen with published peaks in sight.
LARGEST_LIKELY = 160 * MIB

_PRODUCTS = frozenset(
    {
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::_addmm_activation",
        "aten::_native_multi_head_attention",
        "aten::_transformer_encoder_layer_fwd",
    }
)


# Of a depthwise convolution in float16 that goes to cuDNN: channels at least, width of the filter,
# width of the image at least.
_DEPTHWISE_CHANNELS = 32
_DEPTHWISE_WIDTHS = (1, 3, 5)
_DEPTHWISE_IMAGE = 7

_ONE_DIMENSION = len(("image", "channel", "column"))

_ATTENTION_BACKWARD = frozenset(
    {
        "aten::_scaled_dot_product_efficient_attention_backward",
        "aten::_scaled_dot_product_flash_attention_backward",
    }
)


class Workspaces:
    """The rule that `instruments.storage_tracker.StorageTracker` asks at each operator."""

    def __init__(self) -> None:
        self.products = False
        self.convolutions = 0
        self.largest = KernelMemory(0, 0, 0)

    def __call__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload
        args: Sequence[Any],
        kwargs: dict[str, Any],
        output: Any,  # noqa: ANN401 - whatever the operator returned
    ) -> Iterator[KernelMemory]:
        """What the kernels of this operator take."""
        del kwargs
        name = func.overloadpacket._qualified_op_name
        if name in _PRODUCTS:
            self.products = True
            yield _cublas()
        if name == "aten::_native_multi_head_attention":
            yield _inside_attention(args)
        elif name == "aten::_transformer_encoder_layer_fwd":
            yield _inside_encoder_layer(args)
        elif name in _ATTENTION_BACKWARD:
            yield _inside_attention_backward(args)
        elif name == "aten::convolution":
            how = _How(*args[3:9])
            yield from self._convolution("forward", args[0], args[1], output, how)
        elif name == "aten::convolution_backward":
            gradient, input, weight, _, *how_, wanted = args
            how = _How(*how_)
            for there, kind in enumerate(_GRADIENTS):
                if wanted[there]:
                    yield from self._convolution(kind, input, weight, gradient, how, there + 1)

    def _convolution(
        self,
        kind: Kind,
        input: torch.Tensor,
        weight: torch.Tensor,
        result: torch.Tensor,
        how: _How,
        after: int | None = None,
    ) -> Iterator[KernelMemory]:
        channels_last = _is_channels_last(input) or _is_channels_last(weight)
        depthwise = not (how.transposed or channels_last) and _is_depthwise(input, weight, how)
        if depthwise and not _is_cudnns_depthwise(input, weight, how):
            return  # PyTorch's own kernels, which need none
        kernel = _as_cudnn_sees(kind, input, weight, result, how, channels_last)
        if depthwise:
            # As far as is known without the card, cuDNN's kernels for them take next to nothing.
            yield KernelMemory(0, 0, 0, after=after, kernel=kernel)
            return
        workspace = bounds_of(kernel)
        self.convolutions += 1
        if workspace.bytes > self.largest.bytes:
            self.largest = workspace
        yield replace(workspace, after=after, kernel=kernel)

    def terms(self) -> tuple[Workspace, ...]:
        """What was taken on a GPU that is not named, for the record; without the context."""
        terms = []
        if self.products:
            terms.append(cublas_term(CUBLAS.bytes, CUBLAS.low, CUBLAS.high))
        if self.convolutions:
            terms.append(
                Workspace(
                    name="cuDNN, the largest of its convolutions",
                    bytes=self.largest.bytes,
                    low=self.largest.low,
                    high=self.largest.high,
                    inside=True,
                    why="given back after each convolution; the figure is that of kernels that "
                    "turn input, weight and output into channels-last order, the bounds are those "
                    "of no and of a large workspace",
                )
            )
        return tuple(terms)


def cublas_term(size: int, low: int, high: int) -> Workspace:
    """The workspace of cuBLAS, for the record."""
    return Workspace(
        name="cuBLAS, each thread that multiplies",
        bytes=size,
        low=low,
        high=high,
        inside=True,
        why="taken once and kept; 8.125 MiB, 32 MiB from compute capability 9.0 on",
    )


class _How(NamedTuple):
    """What an operator of a convolution is told besides its tensors, in its order."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool
    output_padding: Sequence[int]
    groups: int


_GRADIENTS: tuple[Kind, Kind] = ("input gradient", "weight gradient")
"""In the order in which PyTorch finds them, and has them behind each other in its outputs."""

_TRANSPOSED: dict[Kind, Kind] = {
    "forward": "input gradient",
    "input gradient": "forward",
    "weight gradient": "weight gradient",
}


def _as_cudnn_sees(
    kind: Kind,
    input: torch.Tensor,
    weight: torch.Tensor,
    result: torch.Tensor,
    how: _How,
    channels_last: bool,
) -> Convolution:
    """A transposed convolution is another one's gradient; one dimension is two of them."""
    first, last = tuple(input.shape), tuple(result.shape)
    if how.transposed:
        kind, first, last = _TRANSPOSED[kind], last, first
    return Convolution(
        kind,
        _with_rows(first),
        _with_rows(tuple(weight.shape)),
        _with_rows(last),
        _of_dimensions(how.stride, 1, len(first) - 2),
        _of_dimensions(how.padding, 0, len(first) - 2),
        _of_dimensions(how.dilation, 1, len(first) - 2),
        dtype=str(input.dtype).removeprefix("torch."),
        channels_last=channels_last,
        groups=how.groups,
    )


def _with_rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, shape[2]) if len(shape) == _ONE_DIMENSION else shape


def _of_dimensions(step: Sequence[int], one: int, dimensions: int) -> tuple[int, ...]:
    """A step along each dimension, where one may stand for all."""
    each = tuple(step) if len(step) == dimensions else tuple(step) * dimensions
    return (one, *each) if dimensions == 1 else each


def bounds_of(kernel: Convolution) -> KernelMemory:
    """The workspace of a convolution on a GPU that is not named."""
    return convolution_workspace(
        kernel.input,
        kernel.weight,
        kernel.output,
        kernel.stride,
        getattr(torch, kernel.dtype).itemsize,
        channels_last=kernel.channels_last,
    )


def convolution_workspace(
    input: Sequence[int],
    weight: Sequence[int],
    result: Sequence[int],
    stride: Sequence[int],
    item: int,
    *,
    channels_last: bool = False,
) -> KernelMemory:
    """The workspace of one convolution, or of one of its gradients.

    Args:
        given, weight, result: shapes of input, weight and output, batch first.
        stride: one for each spatial dimension.
        item: bytes of an element.
        channels_last: whether the tensors lie as the kernels want them.

    Returns:
        as the figure, copies of all three in channels-last order, which tensor-core kernels
        work in; as the bounds none, and the largest of twice those copies (partial sums of
        a split product are as large), Winograd's transforms and the fast Fourier
        transform's, these as far as `LARGEST_SEEN`.
    """
    copies = item * (prod(input) + prod(weight) + prod(result))
    figure = 0 if channels_last else copies
    high = 2 * copies
    if _is_plain_3x3(weight, stride) and item == 4:
        transforms = max(_winograd(input, weight, result), _fourier(input, weight))
        high = max(high, min(transforms, LARGEST_SEEN))
    return KernelMemory(bytes=figure, low=0, high=high)


def of_earlier_releases(kernel: Convolution) -> int:
    """A workspace that releases of cuDNN before 9 have chosen for a convolution, at most.

    They are Winograd's and the Fourier transform's, which the plans of later ones have no more.
    """
    if not _is_plain_3x3(kernel.weight, kernel.stride) or kernel.dtype != "float32":
        return 0
    shapes = kernel.input, kernel.weight
    return min(max(_winograd(*shapes, kernel.output), _fourier(*shapes)), LARGEST_LIKELY)


def _is_plain_3x3(weight: Sequence[int], stride: Sequence[int]) -> bool:
    return tuple(weight[2:]) == (3, 3) and all(step == 1 for step in stride)


def _winograd(input: Sequence[int], weight: Sequence[int], result: Sequence[int]) -> int:
    """Non-fused F(4x4, 3x3): transforms of the weight and of each 4 by 4 tile, float32.

    36 numbers stand for each 3 by 3 filter and for each tile of input and output.
    """
    channels, filters = weight[1], weight[0]
    tiles = ceil(result[2] / 4) * ceil(result[3] / 4)
    return 144 * (channels * filters + input[0] * tiles * (channels + filters))


def _fourier(input: Sequence[int], weight: Sequence[int]) -> int:
    """Transforms of 16 by 16 or tiles of 32 by 32 of the weight and input, float32.

    Fitted to cuDNN's own answers as published for many shapes; good to about 1 %.
    """
    channels, filters = weight[1], weight[0]
    if max(input[2], input[3]) + 2 <= 16:
        return 2080 * (channels * filters + input[0] * filters) + 2304 * input[0] * channels
    tiles = ceil(input[2] / 30) * ceil(input[3] / 30)
    return 4352 * (channels * filters + input[0] * (channels + filters) * tiles)


def _is_depthwise(input: torch.Tensor, weight: torch.Tensor, how: _How) -> bool:
    """A filter or several for each channel: cuDNN has no part in it, with few exceptions.

    PyTorch's ``aten/src/ATen/native/Convolution.cpp``, as for those below.
    """
    channels = input.shape[1]
    return how.groups > 1 and how.groups == channels and weight.shape[0] % channels == 0


def _is_cudnns_depthwise(input: torch.Tensor, weight: torch.Tensor, how: _How) -> bool:
    """Whether cuDNN runs it all the same, in NCHW: some shapes in half precision."""
    height, width = weight.shape[2], weight.shape[-1]
    return (
        input.dtype == torch.float16
        and input.dim() == len(("image", "channel", "row", "column"))
        and all(one == 1 for one in how.dilation)
        and len(set(how.stride)) == 1
        and input.shape[1] >= _DEPTHWISE_CHANNELS
        and height == width
        and width in _DEPTHWISE_WIDTHS
        and input.shape[3] >= _DEPTHWISE_IMAGE
    )


def _is_channels_last(tensor: torch.Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(tensor.dim())
    return (
        wanted is not None
        and tensor.is_contiguous(memory_format=wanted)
        and not tensor.is_contiguous()
    )


def _cublas() -> KernelMemory:
    backward = torch._C._current_autograd_node() is not None
    thread = "autograd's thread" if backward else "the forward's thread"
    return replace(CUBLAS, lasting=f"cuBLAS, {thread}", kernel=CUBLAS)


def _inside_attention(args: Sequence[Any]) -> KernelMemory:
    """What attention's fast path takes beside its output.

    PyTorch's ``native/transformers/cuda/attention.cu``: where query, key and value are one tensor
    and neither weights nor a mask are asked for, the projected tensor of three times the width and
    the attended one; else that tensor twice, or with the scores.
    """
    query, key, heads = args[0], args[1], args[4]
    mask, need_weights = args[10] if len(args) > 10 else None, args[11] if len(args) > 11 else True
    batch, length, width = query.shape
    one = batch * length * width * query.element_size()
    fused = query is key and mask is None and not need_weights and (width // heads) % 8 == 0
    if fused:
        return KernelMemory(4 * one, 4 * one, 4 * one)
    scores = batch * heads * length * key.shape[1] * query.element_size()
    plain = max(6 * one, 3 * one + scores * (1 if mask is None else 2))
    return KernelMemory(plain, plain, plain)


def _inside_attention_backward(args: Sequence[Any]) -> KernelMemory:
    """The query's gradient is added up in float32, and the output's may be copied into order.

    PyTorch's ``native/transformers/cuda/attention_backward.cu``.
    """
    query = args[1]
    accumulated = query.numel() * 4
    return KernelMemory(accumulated, 0, 2 * accumulated + query.numel() * query.element_size())


def _inside_encoder_layer(args: Sequence[Any]) -> KernelMemory:
    """Attention's, or the hidden layer with its activation, whichever is more; and two norms."""
    source, hidden = args[0], args[14].shape[0]
    batch, length, width = shape_of(source)
    one = batch * length * width * source.element_size()
    inner = batch * length * hidden * source.element_size()
    most = max(5 * one, 2 * one + 2 * inner)
    return KernelMemory(most, most, most)
