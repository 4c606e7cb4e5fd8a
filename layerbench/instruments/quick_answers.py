"""Answers at once for tensors without values, where the result's shape is plain to see.

These are element-wise operators on tensors that lie alike, and batch normalization. PyTorch's own
answer goes through its reference implementations in Python, operator by operator, which is most of
the time that such a network would take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from layerbench.instruments.modes import OperatorMode


class QuickAnswers(OperatorMode):  # type: ignore[no-untyped-call]
    """Gives the quick answers for meta tensors."""

    def operator(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        """The quick answer, or PyTorch's own."""
        answer = quick_answer(func, args, keywords)
        return func(*args, **keywords) if answer is None else answer


def quick_answer(func: object, args: Sequence[Any], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
    """What an operator gives for tensors without values; ``None`` where one has to ask PyTorch."""
    in_place = _ELEMENTWISE.get(func)
    if in_place is not None and _lie_alike(args):
        return args[0] if in_place else _like(args[0])
    if func is _ATEN._to_copy.default and keywords.keys() == {"dtype"} and _lie_alike(args):
        return _like(args[0], keywords["dtype"])
    quick = _NORMALIZATION.get(func)
    return None if quick is None or keywords else quick(*args)


def _like(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor | None:
    """A new one that lies likewise; ``None`` where `torch.empty_like` would put it into order."""
    made = torch.empty_like(tensor, dtype=dtype)
    return made if made.stride() == tensor.stride() else None


def _lie_alike(args: Sequence[Any]) -> bool:
    """Whether all tensors are like the first argument, which has numbers with a fraction."""
    first, *others = (arg for arg in args if isinstance(arg, torch.Tensor))
    # A tensor that the model makes on the host has values, such as a counter.
    return (
        first is args[0]
        and first.dtype.is_floating_point
        and _stands_in(first)
        and all(
            other.dtype == first.dtype
            and other.shape == first.shape
            and other.stride() == first.stride()
            and _place(other) == _place(first)
            for other in others
        )
    )


def _stands_in(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "fake_device") or tensor.is_meta


def _place(tensor: torch.Tensor) -> torch.device:
    """Where it is, or a fake one says it is."""
    fake: torch.device | None = getattr(tensor, "fake_device", None)
    return tensor.device if fake is None else fake


_Norm = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def _batch_norm(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    training: bool,
    *_: float,
) -> _Norm | None:
    """Output, and each channel's mean and deviation, in training; these have single precision."""
    if not training or not _is_single(input, weight, bias, mean, var):
        return None
    return torch.empty_like(input), _one_per_channel(input), _one_per_channel(input)


def _batch_norm_backward(
    gradient: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    saved_mean: torch.Tensor | None,
    saved_invstd: torch.Tensor | None,
    train: bool,
    eps: float,
    wanted: Sequence[bool],
) -> _Norm | None:
    """The gradients of input, weight and bias, those that are wanted."""
    del eps
    held = weight, mean, var, saved_mean, saved_invstd
    if not (train and wanted[0] and _lie_alike((input, gradient)) and _is_single(input, *held)):
        return None
    scale, shift = (_one_per_channel(input) if one else None for one in wanted[1:])
    return torch.empty_like(input), scale, shift


def _is_single(input: torch.Tensor, *held: torch.Tensor | None) -> bool:
    """Whether weights and statistics are in single precision, and the input lies in order."""
    kinds = {one.dtype for one in held if one is not None}
    known = kinds == {torch.float32} or (not kinds and input.dtype == torch.float32)
    return known and input.dtype in _FORMATS and input.is_contiguous()


def _one_per_channel(input: torch.Tensor) -> torch.Tensor:
    # Made of a tensor, so that it is as the tensor is: fake, or on the meta device.
    return input.new_empty(input.shape[1], dtype=torch.float32)


_FORMATS = (torch.float32, torch.float16, torch.bfloat16)


_ATEN = torch.ops.aten
# Whether each works in place.
_ELEMENTWISE: dict[object, bool] = {
    _ATEN.add.Tensor: False,
    _ATEN.add_.Tensor: True,
    _ATEN.mul.Tensor: False,
    _ATEN.mul_.Tensor: True,
    _ATEN.relu_.default: True,
    _ATEN.silu_.default: True,
    _ATEN.silu_backward.default: False,
    _ATEN.threshold_backward.default: False,
}
_NORMALIZATION: dict[object, Callable[..., _Norm | None]] = {
    _ATEN.native_batch_norm.default: _batch_norm,
    _ATEN.native_batch_norm_backward.default: _batch_norm_backward,
}
