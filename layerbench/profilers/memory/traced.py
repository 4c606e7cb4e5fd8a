"""What a traced run showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from layerbench.instruments.modules import CallFacts
from layerbench.instruments.storage_tracker import Trace
from layerbench.introspection.tensors import bytes_of
from layerbench.records.samples import RowFacts


class Held(NamedTuple):
    """A parameter or buffer: its bytes and its format."""

    bytes: int
    format: str


@dataclass(frozen=True)
class Traced:
    """What a traced run showed.

    Attributes:
        trace: every storage's life.
        modules: facts of the modules' rows; ``calls`` of those that ran.
        notes: what the reader should know.
        forward_s: seconds that the last forward took.
        trained: parameters that get gradients, in their order.
        not_trained: the others, and buffers.
    """

    trace: Trace
    modules: tuple[RowFacts, ...]
    calls: Mapping[str, CallFacts]
    notes: tuple[str, ...] = ()
    forward_s: float = 0.0
    trained: tuple[Held, ...] = ()
    not_trained: tuple[Held, ...] = ()

    @property
    def model_type(self) -> str:
        """The model's class name."""
        return self.modules[0].type


def held_in(tensors: Iterable[torch.Tensor]) -> tuple[Held, ...]:
    """Their bytes and formats, in their order."""
    return tuple(Held(bytes_of(one), str(one.dtype)) for one in tensors)
