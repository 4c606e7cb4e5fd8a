"""Which batches of a workload fit a card, without a trace of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from layerbench.profilers.memory.batch_line import BatchLine, Bytes
from layerbench.profilers.memory.cudnn_plans import Convolution
from layerbench.profilers.memory.on_card import CardWorkspaces, workspaces_on
from layerbench.profilers.memory.replay import reserved_within
from layerbench.profilers.memory.workspaces import CONTEXT
from layerbench.profilers.progress import Progress
from layerbench.records.card import Card

# Where cuDNN is asked for its plans: a little below the batch whose tensors alone fill the card.
_NEAR = 15 / 16
# At a batch that is more than a fiftieth away, cuDNN may have plans with other workspaces.
_PLANS_CHANGE = 50
# As often plans are asked for anew.
_ANCHORS = 4
# Of a large batch a hundredth more or less is beyond what a prediction knows.
_CLOSE = 100
MOST_LOOKS = 20
# The first batch that is looked at, as a part of the one whose tensors alone fill the card.
_FIRST = 0.95


class Largest(NamedTuple):
    """The largest batch that fits.

    Attributes:
        batch: images; 0 where none fits.
        bytes: that it needs at most, with the context.
        notes: what the reader should know.
    """

    batch: int
    bytes: int
    notes: tuple[str, ...]


class Known(NamedTuple):
    """A batch and the bytes that it needs at most."""

    batch: int
    bytes: int


def largest_on(
    line: BatchLine,
    card: Card,
    memory_bytes: int,
    known: Known | None = None,
    *,
    progress: Progress,
) -> Largest:
    """The largest batch of a line that fits into a card's memory; of large ones, a round number.

    Args:
        line: of the workload.
        card: whose plans are asked for.
        memory_bytes: of the device.
        known: a batch whose need is known.
        progress: hears of each look.
    """
    room = memory_bytes - CONTEXT.high
    most = _most(line, room)
    if known is not None and known.bytes > memory_bytes:
        most = min(most, known.batch - 1)
    batches = _Batches(line, card, room, max(1, int(most * _NEAR)), progress)
    largest = batches.largest(most)
    for _ in range(_ANCHORS):
        if batches.are_right_at(largest):
            break
        # What does not fit with the plans of its own batch is no answer, nor is a larger one.
        batches, most = _Batches(line, card, room, largest, progress), largest
        largest = batches.largest(most)
    notes = batches.workspaces.notes
    if known is not None and largest < known.batch and known.bytes <= memory_bytes:
        return Largest(*known, notes)
    return Largest(largest, batches.needed(largest) if largest else 0, notes)


class _Batches:
    """What is reserved at each batch, with the workspaces of the plans at one of them.

    Args:
        line: of the workload.
        card: whose plans are asked for.
        room: bytes for the allocator.
        anchor: the batch at which they are asked for; at others they grow with the batch.
        progress: hears of each look.
    """

    def __init__(
        self, line: BatchLine, card: Card, room: int, anchor: int, progress: Progress
    ) -> None:
        self._line = line
        self._progress = progress
        self._anchor = anchor
        there = line.workspaces_at(anchor)
        self.workspaces: CardWorkspaces = workspaces_on(
            card, (one.kernel for one in there.values()), bounds=False
        )
        self._left = self.workspaces.doubt.left(room)
        grow: dict[int, int] = {}
        stay: dict[int, int] = {}
        for index, one in there.items():
            size = self.workspaces.sizes.get(one.kernel)
            most = (one.high or one.bytes) if size is None else size.bytes
            (grow if isinstance(one.kernel, Convolution) else stay)[index] = most
        self._growing, self._staying = _columns(grow), _columns(stay)
        self._known: dict[int, int | None] = {}

    def reserved(self, batch: int) -> int | None:
        """Bytes of the allocator; ``None`` where the batch does not fit."""
        if batch not in self._known:
            self._progress.step("largest batch", len(self._known), MOST_LOOKS)
            self._known[batch] = self._replayed(batch)
        return self._known[batch]

    def largest(self, most: int) -> int:
        """The largest that fits and is no larger than ``most``; 0 where none does."""
        return search(lambda batch: self.reserved(batch) is not None, most)

    def needed(self, batch: int) -> int:
        """Bytes that one needs at most, with the context; of one that fits."""
        reserved = self.reserved(batch)
        assert reserved is not None
        return self.workspaces.doubt.above(reserved) + CONTEXT.high

    def are_right_at(self, batch: int) -> bool:
        """Whether plans were asked for near enough to a batch."""
        return not batch or abs(batch - self._anchor) * _PLANS_CHANGE <= self._anchor

    def _replayed(self, batch: int) -> int | None:
        sizes = self._line.bytes_at(batch)
        places, most = self._growing
        sizes[places] = most * batch // self._anchor
        places, most = self._staying
        sizes[places] = most
        return reserved_within(
            self._left, self._line.order, sizes.tolist(), self._line.kernels, _smaller
        )


def _columns(sizes: Mapping[int, int]) -> tuple[Bytes, Bytes]:
    return np.array([*sizes], dtype=np.int64), np.array([*sizes.values()], dtype=np.int64)


def _smaller(kernel: object) -> tuple[int, ...]:
    """Nearly all convolutions have a plan that needs no workspace."""
    return (0,) if isinstance(kernel, Convolution) else ()


def _most(line: BatchLine, room: int) -> int:
    """The largest batch whose tensors are never more than so many bytes; 0 where there is none."""
    index = np.array([moment.allocation for moment in line.order])
    sign = np.array([1 if moment.birth else -1 for moment in line.order], dtype=np.int64)

    def peak(batch: int) -> int:
        return int(np.cumsum(line.bytes_at(batch)[index] * sign).max(initial=0))

    below, above = 0, 1
    while peak(above) <= room:
        below, above = above, 2 * above
        if above > 2**40:  # nothing grows with the batch
            return below
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if peak(middle) <= room else (below, middle)
    return below


def search(fits: Callable[[int], bool], most: int) -> int:
    """The largest batch that fits, of those that `_step` leaves; 0 where none does.

    Where one looks first decides how many batches are looked at, and not which is the largest.

    Args:
        fits: whether a batch does; so do all smaller ones.
        most: no larger one does.
    """
    low, high = 0, _next(_grid(most))
    at, stride = max(1, _grid(int(most * _FIRST))), 1
    while _next(low) < high:
        if not low < at < high:
            at = max(_next(low), _grid((low + high) // 2))
        if fits(at):
            low, at = at, at + stride * _step(at)
        else:
            high, at = at, at - stride * _step(at)
        stride *= 2
        at = _grid(max(0, at))
    return low


def _step(batch: int) -> int:
    """Between batches that are looked at: 1 up to 200, then 2, from 400 on 4, and so on."""
    return 1 << max(0, (batch // _CLOSE).bit_length() - 1)


def _grid(batch: int) -> int:
    return batch // _step(batch) * _step(batch)


def _next(batch: int) -> int:
    return batch + _step(batch)
