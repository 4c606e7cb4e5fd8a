"""Let fake tensors take the kernels that a GPU would, where PyTorch asks the device first.

Dropout is one kernel there with a mask of one byte an element; on a CPU it is several with a mask
as large as the input.

For attention PyTorch asks the GPU before it chooses a kernel; without one it always falls back
to the plain products, whose scores take far more memory than the fused kernels'. The choice made
here is the default of PyTorch's ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` on a GPU
of compute capability 8.0 or later: flash attention for half precision without a mask, else
memory-efficient attention, else the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

_ATEN = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_MOST_FLASH_DIM = 256
_FLASH_ALIGNMENT = 8
# Elements in 16 bytes: what the efficient kernel loads at once.
_EFFICIENT_ALIGNMENT = {torch.float32: 4, torch.float16: 8, torch.bfloat16: 8}


@contextmanager
def chosen_as_on_gpu() -> Iterator[None]:
    """Replace two functions of `torch.nn.functional` for fake and meta tensors inside the block."""
    original, original_dropout = functional.scaled_dot_product_attention, functional.dropout

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        query, key, value, attn_mask = _as_autocast(query, key, value, attn_mask)
        four = query.dim() == key.dim() == value.dim() == 4
        if not _stands_in(query) or enable_gqa:
            # PyTorch 2.4 does not know the argument.
            grouped = {"enable_gqa": True} if enable_gqa else {}
            return original(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **grouped
            )
        rest = (dropout_p, is_causal)
        if four and attn_mask is None and _fits_flash(query, value):
            return _first(
                _ATEN._scaled_dot_product_flash_attention, (query, key, value, *rest), scale
            )
        if four and _fits_efficient(query, value):
            keeps = torch.is_grad_enabled() and any(
                tensor.requires_grad for tensor in (query, key, value)
            )
            arguments = (query, key, value, _bias(attn_mask, query, key), keeps, *rest)
            return _first(_ATEN._scaled_dot_product_efficient_attention, arguments, scale)
        plain = (query, key, value, attn_mask, *rest)
        return _first(_ATEN._scaled_dot_product_attention_math, plain, scale)

    def dropout(
        input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not _stands_in(input) or not training or inplace or not 0 < p < 1:
            return original_dropout(input, p, training, inplace)
        output: torch.Tensor = _ATEN.native_dropout(input, p, True)[0]
        return output

    functional.scaled_dot_product_attention = attention
    functional.dropout = dropout
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
        functional.dropout = original_dropout


def _as_autocast(*tensors: Any) -> tuple[Any, ...]:  # noqa: ANN401 - tensors or None
    """Tensors as autocast gives them to attention, where it is on; ``None`` stays."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    kind = torch.get_autocast_dtype("cpu")
    return tuple(
        one.to(kind) if one is not None and one.dtype == torch.float32 else one for one in tensors
    )


def _stands_in(tensor: torch.Tensor) -> bool:
    """Whether it has a shape and no numbers."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


def _first(kernel: Any, arguments: tuple[Any, ...], scale: float | None) -> torch.Tensor:  # noqa: ANN401
    """A kernel's first output; the others serve the backward."""
    output: torch.Tensor = kernel(*arguments, scale=scale)[0]
    return output


def _fits_flash(query: torch.Tensor, value: torch.Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.dtype in _HALF
        and width == value.shape[-1]
        and width <= _MOST_FLASH_DIM
        and width % _FLASH_ALIGNMENT == 0
    )


def _fits_efficient(query: torch.Tensor, value: torch.Tensor) -> bool:
    alignment = _EFFICIENT_ALIGNMENT.get(query.dtype)
    return alignment is not None and all(
        tensor.shape[-1] % alignment == 0 for tensor in (query, value)
    )


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """The mask as the kernel takes it: added to the scores, one for every head."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        zero = torch.zeros((), dtype=query.dtype, device=query.device)
        mask = torch.where(mask, zero, float("-inf"))
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
