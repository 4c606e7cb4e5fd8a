"""A model of PyTorch's caching allocator for CUDA, block by block. No torch.

Source of the mechanism: ``c10/cuda/CUDACachingAllocator.cpp`` and its constants in
``c10/core/AllocatorConfig.h`` of PyTorch. Requests are rounded up to 512 bytes. Up to 1 MiB they
are cut from segments of 2 MiB, larger ones from segments of 20 MiB, those of 10 MiB and more from
segments of their own, a multiple of 2 MiB. A request takes the smallest free block that holds
it, in the order of their addresses; the rest is split off where it is large enough to be of
use. Freed blocks merge with free neighbours of their segment, and segments are kept.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIN_BLOCK = 512
SMALL_REQUEST = 2**20
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
LARGE_REQUEST = 10 * 2**20
SEGMENT_STEP = 2 * 2**20


def rounded(size: int) -> int:
    """Bytes of the smallest block for a request."""
    return max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)


def segment_size(block: int) -> int:
    """Bytes asked of the driver where no free block holds ``block`` bytes."""
    if block <= SMALL_REQUEST:
        return SMALL_SEGMENT
    if block < LARGE_REQUEST:
        return LARGE_SEGMENT
    return -(-block // SEGMENT_STEP) * SEGMENT_STEP


@dataclass(slots=True, eq=False)
class Block:
    """A piece of a segment.

    Attributes:
        size: bytes; ``address`` orders blocks of equal size.
        before, after: its neighbours in the segment.
    """

    size: int
    address: int
    small: bool
    free: bool = False
    before: Block | None = None
    after: Block | None = None


@dataclass
class _Pool:
    """Free blocks, smallest first, by address among equals."""

    keys: list[tuple[int, int]] = field(default_factory=list)
    blocks: dict[tuple[int, int], Block] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        key = (block.size, block.address)
        insort(self.keys, key)
        self.blocks[key] = block

    def remove(self, block: Block) -> None:
        key = (block.size, block.address)
        del self.keys[bisect_left(self.keys, key)]
        del self.blocks[key]

    def take(self, size: int) -> Block | None:
        """The smallest block of at least ``size`` bytes, no longer in the pool."""
        at = bisect_left(self.keys, (size, -1))
        if at == len(self.keys):
            return None
        block = self.blocks.pop(self.keys.pop(at))
        block.free = False
        return block

    def whole_segments(self) -> list[Block]:
        """Free blocks that are a segment."""
        return [
            block for block in self.blocks.values() if block.before is None and block.after is None
        ]


class OutOfMemory(Exception):
    """The device has no room for a segment, even after free ones were given back."""


class CachingAllocator:
    """Hands out blocks as PyTorch's allocator for CUDA does with its default settings.

    Args:
        capacity: bytes that the device has for segments; ``None`` where it never runs out.

    Attributes:
        allocated: bytes of all blocks handed out (``torch.cuda.memory_allocated``): a block
            that is not split counts whole.
        reserved: bytes of all segments (``torch.cuda.memory_reserved``).
        most_reserved: the most that they were (``torch.cuda.max_memory_reserved``).

    Known limitations: one stream; ``PYTORCH_CUDA_ALLOC_CONF`` is not read.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.allocated = 0
        self.reserved = 0
        self.most_reserved = 0
        self.capacity = capacity
        self._pools = {True: _Pool(), False: _Pool()}
        self._next_address = 0

    def allocate(self, size: int) -> Block:
        """A block for ``size`` bytes.

        Raises:
            ValueError: not a positive number; PyTorch allocates nothing for an empty tensor.
            OutOfMemory: the device has no room for it. Free segments are given back then.
        """
        if size <= 0:
            raise ValueError(f"a block needs a positive size, not {size}")
        wanted = rounded(size)
        small = wanted <= SMALL_REQUEST
        block = self._pools[small].take(wanted) or self._new_segment(wanted, small)
        self._split(block, wanted)
        self.allocated += block.size
        return block

    def release(self, block: Block) -> None:
        """Give a block back; it merges with its free neighbours."""
        self.allocated -= block.size
        pool = self._pools[block.small]
        if block.before is not None and block.before.free:
            pool.remove(block.before)
            block = self._merge(block.before, block)
        if block.after is not None and block.after.free:
            pool.remove(block.after)
            block = self._merge(block, block.after)
        block.free = True
        pool.add(block)

    def _new_segment(self, wanted: int, small: bool) -> Block:
        size = segment_size(wanted)
        if self.capacity is not None and self.reserved + size > self.capacity:
            self._give_back()
            if self.reserved + size > self.capacity:
                raise OutOfMemory
        self.reserved += size
        self.most_reserved = max(self.most_reserved, self.reserved)
        block = Block(size, self._next_address, small)
        # A gap, so that segments never look like neighbours.
        self._next_address += size + SEGMENT_STEP
        return block

    def _give_back(self) -> None:
        """What PyTorch does where the driver has no more: all segments without a block in use."""
        for pool in self._pools.values():
            for block in pool.whole_segments():
                pool.remove(block)
                self.reserved -= block.size

    def _split(self, block: Block, wanted: int) -> None:
        rest = block.size - wanted
        if not (rest >= MIN_BLOCK if block.small else rest > SMALL_REQUEST):
            return
        remainder = Block(rest, block.address + wanted, block.small, True, block, block.after)
        if block.after is not None:
            block.after.before = remainder
        block.after = remainder
        block.size = wanted
        self._pools[block.small].add(remainder)

    @staticmethod
    def _merge(first: Block, second: Block) -> Block:
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first
