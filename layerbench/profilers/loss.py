"""A loss of whatever a model puts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from layerbench.introspection.iterators import advice, iterator_in
from layerbench.introspection.nested import tensors_in

# Kinds of losses, as records name them.
RETURNED = "returned by the model"
CROSS_ENTROPY = "cross-entropy against class 0"
SQUARE = "mean square"


class RunFailed(Exception):
    """The model raised; ``str`` says in which layer and what had come in.

    Attributes:
        where: the module in which the forward did, such as ``Linear at head``; empty where it is
            not known.
    """

    def __init__(self, said: str, where: str = "") -> None:
        super().__init__(said)
        self.where = where


def loss_of(output: Any, micro_batches: int = 1) -> torch.Tensor:  # noqa: ANN401 - of any model
    """A scalar to go backward from.

    The ``loss`` of a mapping, as transformers' models return it where they are given labels, is
    the loss. Losses that the model itself returns (torchvision's detectors) are added up. Logits,
    of shape ``[N, C]`` or, in a mapping as segmentation models return them, ``[N, C, H, W]``, go
    into cross-entropy against class 0, each output of a model with auxiliary ones. Of other
    tensors the mean square is taken.

    Args:
        output: of a model in training.
        micro_batches: that a step adds up; the loss is this part of the step's.

    Raises:
        RunFailed: nothing has a gradient.
    """
    own = _own_loss(output)
    if own is not None:
        return own if micro_batches == 1 else own / micro_batches
    losses = [_loss_of_one(tensor, kind) for tensor, kind in _learning(output)]
    if not losses:
        raise RunFailed(_why_no_loss(output))
    loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
    return loss if micro_batches == 1 else loss / micro_batches


def described_loss(output: Any) -> str:  # noqa: ANN401 - of any model
    """What `loss_of` makes of such an output, in words; empty where nothing has a gradient."""
    if _own_loss(output) is not None:
        return RETURNED
    counts = Counter(kind for _, kind in _learning(output))
    if len(counts) == 1 and counts.total() == 1:
        return next(iter(counts))
    return " + ".join(
        f"{kind}, {count} output{'s' if count > 1 else ''}" for kind, count in counts.items()
    )


def _own_loss(output: Any) -> torch.Tensor | None:  # noqa: ANN401 - as in `loss_of`
    own = output.get("loss") if isinstance(output, Mapping) else None
    fits = isinstance(own, torch.Tensor) and own.dim() == 0 and own.requires_grad
    return own if fits else None


def _learning(output: Any) -> list[tuple[torch.Tensor, str]]:  # noqa: ANN401 - as in `loss_of`
    """The tensors with a gradient, and the kind of loss that each has a part in."""
    named = isinstance(output, Mapping)
    return [(one, _kind(one, named)) for one in tensors_in(output) if one.requires_grad]


def _kind(tensor: torch.Tensor, named: bool) -> str:
    if tensor.is_complex():
        return SQUARE
    if tensor.dim() == 0:
        return RETURNED
    return CROSS_ENTROPY if tensor.dim() == 2 or (named and tensor.dim() == 4) else SQUARE


def _why_no_loss(output: Any) -> str:  # noqa: ANN401 - as in `loss_of`
    kind = iterator_in(output)
    if not kind:
        return "the model returned nothing that has a gradient, so it cannot be trained"
    return (
        f"the model returned a {kind}, and its tensors are not known until it is used up: to train "
        f"it here, {advice(kind)}"
    )


def _loss_of_one(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == RETURNED:
        return tensor
    if kind == CROSS_ENTROPY:
        labels = torch.zeros(
            (tensor.shape[0], *tensor.shape[2:]), dtype=torch.int64, device=tensor.device
        )
        return functional.cross_entropy(tensor, labels)
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor.float()
    return real.square().mean()
