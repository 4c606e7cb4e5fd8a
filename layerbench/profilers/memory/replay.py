"""A trace put through the model of the allocator, with workspaces of one size or another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from layerbench.instruments.memory_attribution import events
from layerbench.instruments.storage_tracker import Allocation, Trace
from layerbench.profilers.memory.allocator import (
    SMALL_REQUEST,
    CachingAllocator,
    OutOfMemory,
)

Level = Literal["low", "figure", "high"]

# Among free blocks of one size the device's addresses decide, and nobody knows them; and what ran
# before has cut the free memory into other pieces. One large segment, or a share where there are
# many, more or less.
_SEGMENT = 20 * 2**20


@dataclass(frozen=True)
class Doubt:
    """How far what is reserved may be from the model of the allocator.

    Attributes:
        mixtures: of kernels that are tried.
        less, more: shares of what is reserved.
    """

    mixtures: int
    less: float
    more: float

    def below(self, reserved: int) -> int:
        """The least that may be reserved, bytes."""
        return reserved - max(_SEGMENT, int(reserved * self.less))

    def above(self, reserved: int) -> int:
        """The most that may be reserved, bytes."""
        return reserved + max(_SEGMENT, int(reserved * self.more))

    def left(self, capacity: int) -> int:
        """Bytes for what the model of the allocator reserves, that it fits for certain."""
        return max(0, int(min(capacity - _SEGMENT, capacity / (1 + self.more))))


OF_ANY_GPU = Doubt(mixtures=24, less=0.05, more=0.05)
# Chosen with published peaks of named cards in sight. These count the kernels that the driver has
# loaded, too, so that there is more room above.
OF_A_CARD = Doubt(mixtures=16, less=0.016, more=0.038)


class Moment(NamedTuple):
    """A birth or a death of an allocation.

    Attributes:
        allocation: its place in the trace.
        birth: or death.
        at_once: whether the death comes next, and is no moment of its own.
    """

    allocation: int
    birth: bool
    at_once: bool = False


def moments_of(trace: Trace) -> tuple[Moment, ...]:
    """Every birth and death of a trace, in order."""
    every = [Moment(index, birth) for _, index, birth in events(trace)]
    moments: list[Moment] = []
    for one in every:
        if not one.birth and moments and moments[-1] == (one.allocation, True, False):
            moments[-1] = Moment(one.allocation, True, at_once=True)
        else:
            moments.append(one)
    return tuple(moments)


Size = Callable[[Allocation], int]
Smaller = Callable[[Any], Sequence[int]]
_Moment = tuple[Allocation, int, bool]


@dataclass(frozen=True)
class Replayed:
    """The allocator model's result for a trace.

    Attributes:
        sizes: of the block that each allocation got.
        reserved: the most bytes of all segments; only a device that runs out gets them back.
        fits: whether everything could be had.
    """

    sizes: list[int]
    reserved: int
    fits: bool = True


class Replays:
    """A trace put through the allocator again and again.

    Args:
        trace: of the run.
        capacity: bytes that the device has for the allocator; ``None`` where it never runs out.
        smaller: workspaces that do as well where the one for a kernel cannot be had.
        doubt: how far its bounds are from the runs.

    Attributes:
        low, figure, high: with all workspaces at one of their three sizes.
    """

    def __init__(
        self,
        trace: Trace,
        capacity: int | None = None,
        smaller: Smaller = lambda _: (),
        doubt: Doubt = OF_ANY_GPU,
    ) -> None:
        self._trace = trace
        self._doubt = doubt
        self._capacity = capacity
        self._smaller = smaller
        self._moments = list(events(trace))
        self._unknown = any(_is_unknown(allocation) for allocation in trace.allocations)
        self.figure = self._at("figure")
        self.low = self._at("low") if self._unknown else self.figure
        self.high = self._at("high") if self._unknown else self.figure

    @property
    def levels(self) -> tuple[Replayed, Replayed, Replayed]:
        """All three."""
        return self.low, self.figure, self.high

    def reserved_bounds(self) -> tuple[int, int]:
        """The least and the most that may be reserved.

        The kernels of a network are chosen for each shape apart, and a workspace that fits into a
        free block, or does not, decides how the memory is cut from then on. So besides all at
        their lower bound, figure and upper bound, mixtures of them are tried, always the same ones.
        """
        tried = [run.reserved for run in self.levels]
        if self._unknown:
            tried += self._mixtures_reserved()
        return self._doubt.below(min(tried)), self._doubt.above(max(tried))

    def fits(self, capacity: int) -> bool:
        """Whether it runs where the allocator has so many bytes, with the largest workspaces.

        What may be reserved beyond the model's own figure, as in `reserved_bounds`, has room.
        """
        size = partial(_at, level="high")
        return self._run(self._moments, size, self._doubt.left(capacity)).fits

    def _at(self, level: Level) -> Replayed:
        return self._run(self._moments, lambda allocation: _at(allocation, level), self._capacity)

    def _mixtures_reserved(self) -> list[int]:
        """What mixtures reserve; small blocks, which have a pool of their own, are counted once."""
        small = [moment for moment in self._moments if not _may_be_large(moment[0])]
        large = [moment for moment in self._moments if _may_be_large(moment[0])]
        beside = self._run(small, lambda allocation: allocation.bytes).reserved
        left = None if self._capacity is None else max(0, self._capacity - beside)
        return [
            beside + self._run(large, mixture, left).reserved for mixture in _mixtures(self._doubt)
        ]

    def _run(self, moments: Iterable[_Moment], size: Size, capacity: int | None = None) -> Replayed:
        run = _Run(len(self._trace.allocations), capacity, self._smaller)
        for allocation, index, birth in moments:
            if not birth:
                run.release(index)
            elif wanted := size(allocation):
                run.allocate(index, allocation.kernel, wanted)
        return run.replayed()


def reserved_within(
    capacity: int,
    order: Iterable[Moment],
    sizes: Sequence[int],
    kernels: Mapping[int, object],
    smaller: Smaller,
) -> int | None:
    """What is reserved where the allocator has so many bytes; ``None`` where that is too little.

    Args:
        capacity: bytes.
        order: births and deaths.
        sizes: bytes of each allocation.
        kernels: what workspaces are for, by the places of their allocations.
        smaller: as of `Replays`.
    """
    run = _Run(len(sizes), capacity, smaller)
    addresses, allocator = run.addresses, run.allocator
    allocate, release, has_free = allocator.allocate, allocator.release, allocator.has_free
    for index, birth, at_once in order:
        if not birth:
            address = addresses.pop(index, None)
            if address is not None:
                release(address)
            continue
        wanted = sizes[index]
        if not wanted or (at_once and has_free(wanted)):
            continue
        kernel = kernels.get(index)
        if kernel is None:
            try:
                addresses[index] = allocate(wanted)
            except OutOfMemory:
                return None
        else:
            run.allocate(index, kernel, wanted)
            if not run.fits:
                return None
        if at_once:
            run.release(index)
    return allocator.most_reserved


class _Run:
    """One trace going through one allocator."""

    def __init__(self, allocations: int, capacity: int | None, smaller: Smaller) -> None:
        self.allocator = CachingAllocator(capacity)
        self.addresses: dict[int, int] = {}
        self._sizes = [0] * allocations
        self._smaller = smaller
        self._taken: dict[object, int] = {}
        self.fits = True

    def allocate(self, index: int, kernel: object, wanted: int) -> None:
        # cuDNN's plan that could be had once is the one that runs from then on.
        if kernel is not None:
            wanted = min(wanted, self._taken.get(kernel, wanted))
            if not wanted:
                return
        try:
            address = self.allocator.allocate(wanted)
        except OutOfMemory:
            instead = self._instead(kernel, wanted)
            if instead is None:
                return
            address = instead
        self.addresses[index] = address
        self._sizes[index] = self.allocator.blocks[address]

    def release(self, index: int) -> None:
        address = self.addresses.pop(index, None)
        if address is not None:
            self.allocator.release(address)

    def replayed(self) -> Replayed:
        return Replayed(self._sizes, self.allocator.most_reserved, self.fits)

    def _instead(self, kernel: object, wanted: int) -> int | None:
        """The block for a smaller workspace; ``None`` for none. Beyond the capacity without one."""
        for less in self._smaller(kernel):
            if less < wanted:
                self._taken[kernel] = less
                if not less:
                    return None
                try:
                    return self.allocator.allocate(less)
                except OutOfMemory:
                    continue
        self.fits, self.allocator.capacity = False, None
        return self.allocator.allocate(wanted)


def _mixtures(doubt: Doubt) -> Iterator[Size]:
    for seed in range(doubt.mixtures):
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
