"""Autocast by a GPU's rules, for CPU tensors that stand in for a GPU's.

Which operators autocast leaves in float32 depends on the device: layer normalization and softmax
are such on CUDA, not on the CPU. So the CPU's rules are completed by CUDA's, as PyTorch's
``aten/src/ATen/autocast_mode.h`` lists them, while the block runs.

Known limitation: what only the CPU's rules leave in float32, such as 3-D pooling and padding by
reflection, stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet

from layerbench.introspection.nested import map_tensors
from layerbench.records.workload import Precision, autocast_format

KEY = "AutocastCPU"
# AT_FORALL_FP32: their inputs are cast.
CAST = (
    "acos", "asin", "cosh", "cosine_similarity", "dist", "erfinv", "exp", "expm1",
    "frobenius_norm.dim", "group_norm", "layer_norm", "linalg_matrix_norm", "linalg_vector_norm",
    "log", "log10", "log1p", "log2", "logsumexp", "native_layer_norm", "norm.ScalarOpt_dim",
    "nuclear_norm", "pdist", "pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "reciprocal",
    "renorm", "rsqrt", "sinh", "softplus", "tan", "upsample_bicubic2d", "upsample_bilinear2d",
    "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_trilinear3d",
)  # fmt: skip
# AT_FORALL_FP32_SET_OPT_DTYPE: the kernel reads what it has and writes float32.
WRITTEN = ("softmax.int", "log_softmax.int", "cumprod", "cumsum", "sum", "sum.dim_IntList")


@contextmanager
def autocast_as_on_gpu(precision: Precision | None) -> Iterator[None]:
    """Complete the rules of the CPU's autocast in the block, if the precision is autocast."""
    if autocast_format(precision) is None:
        yield
        return
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in (*CAST, *WRITTEN):
            operator = _operator(name)
            if not torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), KEY):
                rule = _written if name in WRITTEN else _cast
                library.impl(name, _around(rule, operator), KEY)
        yield


def _operator(name: str) -> Any:  # noqa: ANN401 - an OpOverload
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _around(
    rule: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    operator: Any,  # noqa: ANN401 - as above
) -> Callable[..., Any]:
    within = DispatchKeySet(getattr(DispatchKey, KEY))

    def kernel(*args: Any, **keywords: Any) -> Any:  # noqa: ANN401 - an operator's
        with torch._C._ExcludeDispatchKeyGuard(within):
            return rule(operator, args, keywords)

    return kernel


def _cast(operator: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
    args, keywords = map_tensors((args, keywords), _in_float32)
    return operator(*args, **keywords)


def _in_float32(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.to(torch.float32) if half else tensor


def _written(operator: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
    tensor, *others = args
    asked = keywords.get("dtype") is not None or any(isinstance(o, torch.dtype) for o in others)
    if asked or tensor.dtype not in (torch.float16, torch.bfloat16):
        return operator(*args, **keywords)
    directly = _DIRECTLY.get(operator)
    if directly is not None and tensor.dtype == torch.float16:
        return directly(tensor, others[0], True)
    keywords.pop("dtype", None)
    if directly is not None:
        return directly(tensor.to(torch.float32), others[0], False)
    return operator(tensor, *others, dtype=torch.float32, **keywords)


# On CUDA they convert from float16 within the kernel, and nothing else is converted there.
_DIRECTLY = {
    torch.ops.aten.softmax.int: torch.ops.aten._softmax,
    torch.ops.aten.log_softmax.int: torch.ops.aten._log_softmax,
}
