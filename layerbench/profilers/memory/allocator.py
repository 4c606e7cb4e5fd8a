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

MIN_BLOCK = 512
SMALL_REQUEST = 2**20
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
LARGE_REQUEST = 10 * 2**20
SEGMENT_STEP = 2 * 2**20
# A free block is one number, its size before its address, so that numbers order as blocks do.
_ADDRESS_BITS = 48
_ADDRESS = (1 << _ADDRESS_BITS) - 1


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


class OutOfMemory(Exception):
    """The device has no room for a segment, even after free ones were given back."""


class CachingAllocator:
    """Hands out blocks as PyTorch's allocator for CUDA does with its default settings.

    Args:
        capacity: bytes that the device has for segments; ``None`` where it never runs out.

    Attributes:
        blocks: bytes of each block handed out, by its address: one that is not split counts whole.
        reserved: bytes of all segments (``torch.cuda.memory_reserved``).
        most_reserved: the most that they were (``torch.cuda.max_memory_reserved``).

    Known limitations: one stream; ``PYTORCH_CUDA_ALLOC_CONF`` is not read.
    """

    # Each prediction hands out a million blocks: so there are no objects, and few calls.

    def __init__(self, capacity: int | None = None) -> None:
        self.blocks: dict[int, int] = {}
        self.reserved = 0
        self.most_reserved = 0
        self.capacity = capacity
        # Free blocks as one number each, smallest first, by address among equals.
        self._small: list[int] = []
        self._large: list[int] = []
        # The same blocks: the size by the address, and the address by the end.
        self._sizes: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._segments: dict[int, int] = {}
        self._next_address = 0

    @property
    def allocated(self) -> int:
        """Bytes of all blocks handed out (``torch.cuda.memory_allocated``)."""
        return sum(self.blocks.values())

    def allocate(self, size: int) -> int:
        """The address of a block for ``size`` bytes.

        Raises:
            ValueError: not a positive number; PyTorch allocates nothing for an empty tensor.
            OutOfMemory: the device has no room for it. Free segments are given back then.
        """
        if size <= 0:
            raise ValueError(f"a block needs a positive size, not {size}")
        wanted = -(-size // MIN_BLOCK) * MIN_BLOCK  # as `rounded`, without a call
        small = wanted <= SMALL_REQUEST
        free = self._small if small else self._large
        at = bisect_left(free, wanted << _ADDRESS_BITS)
        if at < len(free):
            key = free.pop(at)
            whole, address = key >> _ADDRESS_BITS, key & _ADDRESS
            del self._sizes[address]
        else:
            address, whole = self._new_segment(wanted)
        rest, end = whole - wanted, address + whole
        if rest >= MIN_BLOCK if small else rest > SMALL_REQUEST:
            start = address + wanted
            self._sizes[start], self._ends[end] = rest, start
            insort(free, rest << _ADDRESS_BITS | start)
            whole = wanted
        else:
            self._ends.pop(end, None)
        self.blocks[address] = whole
        return address

    def has_free(self, size: int) -> bool:
        """Whether a free block holds it, so that taking it and giving it back changes nothing."""
        # Blocks are rounded, so that one that holds the size holds what it is rounded to.
        free = self._small if size <= SMALL_REQUEST else self._large
        return bool(free) and free[-1] >> _ADDRESS_BITS >= size

    def release(self, address: int) -> None:
        """Give a block back; it merges with its free neighbours."""
        size = self.blocks.pop(address)
        # Large blocks are larger than any small request, also where they are not split.
        free = self._small if size <= SMALL_REQUEST else self._large
        end = address + size
        before = self._ends.pop(address, None)
        if before is not None:
            more = self._sizes.pop(before)
            del free[bisect_left(free, more << _ADDRESS_BITS | before)]
            address, size = before, size + more
        after = self._sizes.pop(end, None)
        if after is not None:
            del free[bisect_left(free, after << _ADDRESS_BITS | end)]
            size, end = size + after, end + after
        self._sizes[address], self._ends[end] = size, address
        insort(free, size << _ADDRESS_BITS | address)

    def free_blocks(self) -> dict[int, int]:
        """Bytes of each free block, by its address."""
        return dict(self._sizes)

    def segments(self) -> dict[int, int]:
        """Bytes of each segment, by its address."""
        return dict(self._segments)

    def _new_segment(self, wanted: int) -> tuple[int, int]:
        size = segment_size(wanted)
        if self.capacity is not None and self.reserved + size > self.capacity:
            self._give_back()
            if self.reserved + size > self.capacity:
                raise OutOfMemory
        self.reserved += size
        self.most_reserved = max(self.most_reserved, self.reserved)
        address = self._next_address
        self._segments[address] = size
        # A gap, so that segments never look like neighbours.
        self._next_address += size + SEGMENT_STEP
        return address, size

    def _give_back(self) -> None:
        """What PyTorch does where the driver has no more: all segments without a block in use."""
        for free in (self._small, self._large):
            kept = []
            for key in free:
                size, address = key >> _ADDRESS_BITS, key & _ADDRESS
                if self._segments.get(address) != size:
                    kept.append(key)
                    continue
                self.reserved -= size
                del self._segments[address], self._sizes[address], self._ends[address + size]
            free[:] = kept
