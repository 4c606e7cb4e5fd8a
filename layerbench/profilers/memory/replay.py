"""A trace put through the model of the allocator, with workspaces of one size or another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from layerbench.instruments.memory_attribution import events
from layerbench.instruments.storage_tracker import Allocation, Trace
from layerbench.profilers.memory.allocator import SMALL_REQUEST, Block, CachingAllocator

Level = Literal["low", "figure", "high"]
_LEVELS: tuple[Level, ...] = ("low", "figure", "high")

DRAWS = 24
"""How many mixtures of kernels are tried."""

# Among free blocks of one size the device's addresses decide, and nobody knows them; and what ran
# before has cut the free memory into other pieces. One large segment, or a twentieth where there
# are many, more or less.
_SEGMENT = 20 * 2**20
_FRAGMENTED = 0.05

Size = Callable[[Allocation], int]
_Moment = tuple[Allocation, int, bool]


@dataclass(frozen=True)
class Replayed:
    """The allocator model's result for a trace.

    Attributes:
        sizes: of the block that each allocation got.
        reserved: bytes of all segments at the end; they are never given back.
    """

    sizes: list[int]
    reserved: int


class Replays:
    """A trace put through the allocator again and again.

    Attributes:
        low, figure, high: with all workspaces at one of their three sizes.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._moments = list(events(trace))
        self.low, self.figure, self.high = map(self._at, _LEVELS)

    @property
    def levels(self) -> tuple[Replayed, Replayed, Replayed]:
        """All three."""
        return self.low, self.figure, self.high

    def reserved_bounds(self) -> tuple[int, int]:
        """The least and the most that may be reserved.

        The kernels of a network are chosen for each shape apart, and a workspace that fits into a
        free block, or does not, decides how the memory is cut from then on. So besides all at
        their lower bound, figure and upper bound, `DRAWS` mixtures of them are tried, always the
        same ones.
        """
        tried = [run.reserved for run in self.levels]
        if any(_is_unknown(allocation) for allocation in self._trace.allocations):
            tried += self._mixtures_reserved()
        return min(tried) - _spread(min(tried)), max(tried) + _spread(max(tried))

    def _at(self, level: Level) -> Replayed:
        return self._run(self._moments, lambda allocation: _at(allocation, level))

    def _mixtures_reserved(self) -> list[int]:
        """What mixtures reserve; small blocks, which have a pool of their own, are counted once."""
        small = [moment for moment in self._moments if not _may_be_large(moment[0])]
        large = [moment for moment in self._moments if _may_be_large(moment[0])]
        beside = self._run(small, lambda allocation: allocation.bytes).reserved
        return [beside + self._run(large, mixture).reserved for mixture in _mixtures()]

    def _run(self, moments: Iterable[_Moment], size: Size) -> Replayed:
        allocator = CachingAllocator()
        blocks: dict[int, Block] = {}
        sizes = [0] * len(self._trace.allocations)
        for allocation, index, birth in moments:
            if birth:
                wanted = size(allocation)
                if wanted > 0:
                    block = blocks[index] = allocator.allocate(wanted)
                    sizes[index] = block.size
            elif index in blocks:
                allocator.release(blocks.pop(index))
        return Replayed(sizes, allocator.reserved)


def _mixtures() -> Iterator[Size]:
    for seed in range(DRAWS):
        yield _mixture(random.Random(seed))


def _mixture(generator: random.Random) -> Size:
    """A choice for each kind of workspace, kept for the whole run as a library's plans are."""
    chosen: dict[tuple[str, str, int, int | None, int | None], int] = {}

    def size(allocation: Allocation) -> int:
        if not _is_unknown(allocation):
            return allocation.bytes
        low, high = _at(allocation, "low"), _at(allocation, "high")
        kind = (allocation.operator, allocation.phase, allocation.bytes, low, high)
        if kind not in chosen:
            between = generator.randint(low, high)
            chosen[kind] = generator.choice((low, allocation.bytes, high, between))
        return chosen[kind]

    return size


def _may_be_large(allocation: Allocation) -> bool:
    return max(allocation.bytes, allocation.high or 0) > SMALL_REQUEST


def _is_unknown(allocation: Allocation) -> bool:
    return allocation.low is not None and allocation.low != allocation.high


def _at(allocation: Allocation, level: Level) -> int:
    if allocation.low is None or allocation.high is None or level == "figure":
        return allocation.bytes
    return allocation.low if level == "low" else allocation.high


def _spread(reserved: int) -> int:
    return max(_SEGMENT, int(reserved * _FRAGMENTED))
