"""Which batches of a workload fit a card, without a trace of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from layerbench.instruments.storage_tracker import Allocation
from layerbench.profilers.memory.batch_line import BatchLine, Bytes
from layerbench.profilers.memory.cudnn_plans import Convolution
from layerbench.profilers.memory.on_card import workspaces_on
from layerbench.profilers.memory.replay import OF_A_CARD, Moment, reserved_within
from layerbench.profilers.memory.workspaces import CONTEXT
from layerbench.profilers.progress import Progress
from layerbench.records.card import Card

# At a batch that is more than a thirtieth away, cuDNN may have plans with other workspaces.
_PLANS_CHANGE = 30
# As often plans are asked for anew.
_ANCHORS = 4
# Of a large batch a hundredth more or less is beyond what a prediction knows.
_CLOSE = 100
# The same of where plans are asked for.
_ROUGH = 50
MOST_LOOKS = 20
# Whose workspaces are looked at first, as a part of the batch whose tensors alone fill the card.
_FIRST = 0.92


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
    batches = _Batches(line, room, max(1, int(most * _FIRST)), progress)
    largest = batches.largest(most, int(most * _FIRST), _ROUGH)
    batches = _BatchesOnCard(line, room, max(1, largest), progress, card)
    largest = batches.largest(most, max(1, largest))
    for _ in range(_ANCHORS):
        if batches.are_right_at(largest):
            break
        # What does not fit with the plans of its own batch is no answer, nor is a larger one.
        batches, most = _BatchesOnCard(line, room, largest, progress, card), largest
        largest = batches.largest(most, most)
    notes = batches.notes
    if known is not None and largest < known.batch and known.bytes <= memory_bytes:
        return Largest(*known, notes)
    return Largest(largest, batches.needed(largest) if largest else 0, notes)


class _Batches:
    """What is reserved at each batch, with workspaces as they are on a GPU that is not named.

    Args:
        line: of the workload.
        room: bytes for the allocator.
        anchor: the batch whose workspaces are known; at others they grow with the batch.
        progress: hears of each look.
    """

    doubt = OF_A_CARD
    notes: tuple[str, ...] = ()

    def __init__(self, line: BatchLine, room: int, anchor: int, progress: Progress) -> None:
        self._line = line
        self._progress = progress
        self._anchor = anchor
        self._known: dict[int, int | None] = {}
        sizes = self._sizes(line.workspaces_at(anchor))
        kernels = line.kernels
        grow = {at: size for at, size in sizes.items() if isinstance(kernels[at], Convolution)}
        stay = {at: size for at, size in sizes.items() if at not in grow}
        self._growing, self._staying = _columns(grow), _columns(stay)
        self._left = self.doubt.left(room)

    def _sizes(self, workspaces: Mapping[int, Allocation]) -> Mapping[int, int]:
        """Bytes of each workspace at the anchor."""
        return {at: one.bytes for at, one in workspaces.items()}

    def reserved(self, batch: int) -> int | None:
        """Bytes of the allocator; ``None`` where the batch does not fit."""
        if batch not in self._known:
            self._progress.step("largest batch", len(self._known), MOST_LOOKS)
            self._known[batch] = self._replayed(batch)
        return self._known[batch]

    def largest(self, most: int, first: int, part: int = _CLOSE) -> int:
        """The largest that fits and is no larger than ``most``, as `search` looks for it."""
        return search(lambda batch: self.reserved(batch) is not None, most, first, part)

    def needed(self, batch: int) -> int:
        """Bytes that one needs at most, with the context; of one that fits."""
        reserved = self.reserved(batch)
        assert reserved is not None
        return self.doubt.above(reserved) + CONTEXT.high

    def are_right_at(self, batch: int) -> bool:
        """Whether plans were asked for near enough to a batch."""
        return not batch or abs(batch - self._anchor) * _PLANS_CHANGE <= self._anchor

    def _replayed(self, batch: int) -> int | None:
        sizes = self._line.bytes_at(batch)
        places, most = self._growing
        sizes[places] = most * batch // self._anchor
        places, most = self._staying
        sizes[places] = most
        known, question = self._line.replayed, (self._left, sizes.tobytes())
        if question not in known:  # cards with as much memory ask the same
            known[question] = reserved_within(
                self._left, self._line.order, sizes.tolist(), self._line.kernels, _smaller
            )
        return known[question]


class _BatchesOnCard(_Batches):
    """The same with the workspaces of cuDNN's plans for a card."""

    def __init__(
        self, line: BatchLine, room: int, anchor: int, progress: Progress, card: Card
    ) -> None:
        self._card = card
        super().__init__(line, room, anchor, progress)

    def _sizes(self, workspaces: Mapping[int, Allocation]) -> Mapping[int, int]:
        there = workspaces_on(self._card, (one.kernel for one in workspaces.values()), bounds=False)
        self.doubt, self.notes = there.doubt, there.notes
        known = there.sizes
        return {
            at: known[one.kernel].bytes if one.kernel in known else one.high or one.bytes
            for at, one in workspaces.items()
        }


def _columns(sizes: Mapping[int, int]) -> tuple[Bytes, Bytes]:
    return np.array([*sizes], dtype=np.int64), np.array([*sizes.values()], dtype=np.int64)


def _smaller(kernel: object) -> tuple[int, ...]:
    """Nearly all convolutions have a plan that needs no workspace."""
    return (0,) if isinstance(kernel, Convolution) else ()


def _most(line: BatchLine, room: int) -> int:
    """The largest batch whose tensors are never more than so many bytes; 0 where there is none."""
    changes = [(one.allocation, sign) for one in line.order for sign in _signs(one)]
    index, sign = (np.array(column, dtype=np.int64) for column in zip(*changes, strict=True))

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


def _signs(moment: Moment) -> tuple[int, ...]:
    """Whether bytes come, go, or both."""
    if moment.at_once:
        return 1, -1
    return (1,) if moment.birth else (-1,)


def search(fits: Callable[[int], bool], most: int, first: int, part: int = _CLOSE) -> int:
    """The largest batch that fits, of those that `_step` leaves; 0 where none does.

    Where one looks first decides how many batches are looked at, and not which is the largest.

    Args:
        fits: whether a batch does; so do all smaller ones.
        most: no larger one does.
        first: what is looked at first.
        part: of a batch, that one more or less does not matter.
    """
    low, high = 0, _next(_grid(most, part), part)
    at, stride = max(1, _grid(first, part)), 1
    while _next(low, part) < high:
        if not low < at < high:
            at = max(_next(low, part), _grid((low + high) // 2, part))
        if fits(at):
            low, at = at, at + stride * _step(at, part)
        else:
            high, at = at, at - stride * _step(at, part)
        stride *= 2
        at = _grid(max(0, at), part)
    return low


def _step(batch: int, part: int) -> int:
    """Between batches that are looked at: 1 up to twice the part, then 2, from four times it 4."""
    return 1 << max(0, (batch // part).bit_length() - 1)


def _grid(batch: int, part: int) -> int:
    return batch // _step(batch, part) * _step(batch, part)


def _next(batch: int, part: int) -> int:
    return batch + _step(batch, part)
