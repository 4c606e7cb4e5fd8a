"""The model of CUDA's caching allocator, on sequences worked out by hand from its rules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbench.profilers.memory.allocator import CachingAllocator, rounded, segment_size

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("size", "block"), [(1, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512)]
)
def test_requests_are_rounded_to_512_bytes(size, block):
    assert rounded(size) == block


@pytest.mark.parametrize(
    ("block", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (21 * MIB, 22 * MIB),
    ],
)
def test_segments(block, segment):
    assert segment_size(block) == segment


def test_small_requests_share_a_segment():
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.allocate(512 * KIB)
    assert (allocator.allocated, allocator.reserved) == (2 * MIB, 2 * MIB)
    allocator.allocate(1)
    assert (allocator.allocated, allocator.reserved) == (2 * MIB + 512, 4 * MIB)


def test_large_and_small_requests_lie_apart():
    allocator = CachingAllocator()
    allocator.allocate(100)
    allocator.allocate(3 * MIB)
    assert allocator.reserved == 22 * MIB


def test_a_large_rest_of_up_to_one_mebibyte_is_not_split_off_and_counts_as_allocated():
    allocator = CachingAllocator()
    allocator.allocate(9 * MIB)  # of a segment of 20
    allocator.allocate(10 * MIB)
    assert (allocator.allocated, allocator.reserved) == (20 * MIB, 20 * MIB)
    allocator.allocate(2 * MIB)
    assert allocator.reserved == 40 * MIB


def test_a_larger_rest_is_split_off():
    allocator = CachingAllocator()
    allocator.allocate(9 * MIB)
    allocator.allocate(10 * MIB - 512)
    assert (allocator.allocated, allocator.reserved) == (19 * MIB - 512, 20 * MIB)


def test_a_request_of_ten_mebibytes_gets_its_own_segment():
    allocator = CachingAllocator()
    allocator.allocate(11 * MIB)  # a segment of 12, the rest of 1 MiB stays with the block
    assert (allocator.allocated, allocator.reserved) == (12 * MIB, 12 * MIB)


def test_the_smallest_free_block_that_is_large_enough_is_taken():
    allocator = CachingAllocator()
    large = allocator.allocate(600 * KIB)
    allocator.allocate(512)
    small = allocator.allocate(300 * KIB)
    allocator.allocate(512)
    allocator.release(large)
    allocator.release(small)
    assert allocator.allocate(200 * KIB) == small


def test_freed_neighbours_merge():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(5 * MIB) for _ in range(4)]
    assert allocator.reserved == 20 * MIB
    for index in (0, 2, 1):
        allocator.release(blocks[index])
    assert allocator.allocated == 5 * MIB
    allocator.allocate(9 * MIB)
    allocator.allocate(6 * MIB)
    assert (allocator.allocated, allocator.reserved) == (20 * MIB, 20 * MIB)


def test_segments_are_kept():
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(30 * MIB))
    assert (allocator.allocated, allocator.reserved) == (0, 30 * MIB)
    allocator.allocate(29 * MIB)
    assert allocator.reserved == 30 * MIB


def test_nothing_is_no_block():
    with pytest.raises(ValueError, match="positive"):
        CachingAllocator().allocate(0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 24 * MIB), st.integers(0, 10**6)), max_size=60)
)
def test_what_always_holds(steps):
    """Blocks alive never overlap, the counters are their sums, and all freed leaves nothing."""
    allocator = CachingAllocator()
    alive = []
    for frees, size, pick in steps:
        if frees and alive:
            allocator.release(alive.pop(pick % len(alive)))
        else:
            before = allocator.reserved
            fits = allocator.has_free(size)
            block = allocator.allocate(size)
            assert size <= allocator.blocks[block] <= size + 511 + (MIB if size > MIB else 0)
            assert fits == (allocator.reserved == before)
            alive.append(block)
        assert sorted(allocator.blocks) == sorted(alive)
        assert allocator.allocated <= allocator.reserved
        everything = [*allocator.blocks.items(), *allocator.free_blocks().items()]
        places = sorted((address, address + size) for address, size in everything)
        assert all(a[1] <= b[0] for a, b in pairwise(places))
        assert sum(size for _, size in everything) == allocator.reserved
    for block in alive:
        allocator.release(block)
    assert allocator.allocated == 0
    # Everything merged: each segment is one free block again.
    assert allocator.free_blocks() == allocator.segments()
