"""Input specs: a name from one table, or a shape. No torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from layerbench.errors import BadInput, at_least, did_you_mean

Shape = tuple[int, ...]

NAMED: dict[str, Shape] = {
    "cityscapes": (1, 3, 1024, 2048),
    "pascal": (1, 3, 500, 334),
    "imagenet": (1, 3, 224, 224),
    "coco": (1, 3, 480, 640),
    "cifar100": (1, 3, 32, 32),
}

# The name of the inputs that a user's callable returns itself.
OWN = "own"

_SHAPE = re.compile(r"[0-9]{1,18}(x[0-9]{1,18}){2,}", re.IGNORECASE)
_DIMENSIONS_WITHOUT_BATCH = 3
MOST_ELEMENTS = 2**56


@dataclass(frozen=True)
class InputSpec:
    """An input, as the workload records it.

    Attributes:
        name: a name of `NAMED`, or the shape written out with the batch first.
        shape: the tensor's shape, batch first.
    """

    name: str
    shape: Shape


def parse(spec: str, batch: int | None = None) -> InputSpec:
    """Read an input spec.

    Args:
        spec: a name of `NAMED`; a shape ``NxCxHxW`` (longer for videos: ``NxCxTxHxW``); or
            ``CxHxW``, with the batch from ``batch`` (1 where that is ``None``).
        batch: images per forward; replaces the batch of a named input.

    Raises:
        BadInput: the spec cannot be read, or its batch is not ``batch``.
        UsageError: ``batch`` is not positive.
    """
    check_batch(batch)
    text = spec.strip().lower()
    if text in NAMED:
        shape = NAMED[text]
        return InputSpec(text, shape if batch is None else (batch, *shape[1:]))
    shape = _parse_shape(spec, text)
    if len(shape) == _DIMENSIONS_WITHOUT_BATCH:
        shape = (1 if batch is None else batch, *shape)
    if batch is not None and shape[0] != batch:
        raise BadInput(
            f"input {spec!r} holds {shape[0]} image(s) and the batch is {batch}: "
            "give one of the two, or leave the first size out (CxHxW)"
        )
    if math.prod(shape) > MOST_ELEMENTS:
        raise BadInput(f"input {spec!r} has more elements than a tensor can hold")
    return InputSpec("x".join(map(str, shape)), shape)


def check_batch(batch: int | None) -> None:
    """Raise `UsageError` for a batch that is not positive."""
    if batch is not None:
        at_least("the batch", batch, 1)


def _parse_shape(spec: str, text: str) -> Shape:
    if _SHAPE.fullmatch(text):
        shape = tuple(int(size) for size in text.split("x"))
        if min(shape) > 0:
            return shape
    close = did_you_mean(text, NAMED)
    hint = f" ({close})" if close else ""
    raise BadInput(
        f"cannot read the input {spec!r}{hint}: give {', '.join(NAMED)}, or a shape of "
        "positive sizes, NxCxHxW or CxHxW, such as 8x3x224x224; inputs of another form are "
        "tensors, beside a module object, or come with it from a callable, as (module, inputs)"
    )
