"""A run at any batch, read off from traced ones.

Where two runs of different batches do the same things in the same order, each storage's bytes and
each convolution's shape lie on a straight line through the two. Where one run's batch is a large
prime, what is a multiple of it is the batch's, and one run is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerbench.instruments.storage_tracker import Allocation
from layerbench.profilers.memory.cudnn_plans import Convolution
from layerbench.profilers.memory.replay import Moment, moments_of
from layerbench.profilers.memory.run_for_gpu import RunForGpu
from layerbench.profilers.memory.workspaces import bounds_of

Bytes = NDArray[np.int64]

PRIME_BATCH = 509
"""A prime that is no width of a layer and no number of tokens."""


class BatchLine:
    """Runs of one workload that differ in the batch alone.

    Attributes:
        replayed: what the allocator was found to reserve, by its capacity and all sizes, as bytes.

    Args:
        run: that was traced, with fake tensors.
        batch: images of it.
        each: what each image adds to each of its allocations.
    """

    def __init__(self, run: RunForGpu, batch: int, each: Sequence[_Growth]) -> None:
        self._run = run
        self._batch = batch
        self._each = each
        self.replayed: dict[tuple[int, bytes], int | None] = {}

    def at(self, batch: int) -> RunForGpu:
        """The run at a batch."""
        more = batch - self._batch
        trace = self._run.traced.trace
        allocations = [
            growth.of(allocation, more)
            for growth, allocation in zip(self._each, trace.allocations, strict=True)
        ]
        traced = replace(self._run.traced, trace=replace(trace, allocations=allocations))
        return replace(self._run, traced=traced)

    def bytes_at(self, batch: int) -> Bytes:
        """Bytes of each allocation at a batch, at most; workspaces that cards decide are 0."""
        return self._fixed + batch * self._slopes

    def workspaces_at(self, batch: int) -> Mapping[int, Allocation]:
        """Workspaces whose size the card decides, at a batch, by their places in the trace.

        What is not of the size, such as the moment of birth, may be that of an equal workspace.
        """
        more = batch - self._batch
        allocations = self._run.traced.trace.allocations
        found: dict[object, Allocation] = {}
        workspaces = {}
        for index in self.kernels:
            growth, one = self._each[index], allocations[index]
            # Each layer's comes in every step, and equal layers' are equal.
            what = growth, one.bytes, one.low, one.high, one.kernel
            if what not in found:
                found[what] = growth.of(one, more)
            workspaces[index] = found[what]
        return workspaces

    @cached_property
    def order(self) -> tuple[Moment, ...]:
        """Every birth and death, in order, the same at each batch."""
        return moments_of(self._run.traced.trace)

    @cached_property
    def kernels(self) -> Mapping[int, object]:
        """What workspaces are for whose size the card decides, by the place of the allocation."""
        allocations = enumerate(self._run.traced.trace.allocations)
        return {index: one.kernel for index, one in allocations if one.kernel is not None}

    @cached_property
    def _slopes(self) -> Bytes:
        allocations = self._run.traced.trace.allocations
        slopes = [
            growth.bytes if one.high is None else growth.high
            for growth, one in zip(self._each, allocations, strict=True)
        ]
        return self._without_workspaces(slopes)

    @cached_property
    def _fixed(self) -> Bytes:
        sizes = [
            one.bytes if one.high is None else one.high
            for one in self._run.traced.trace.allocations
        ]
        fixed: Bytes = self._without_workspaces(sizes) - self._batch * self._slopes
        return fixed

    def _without_workspaces(self, amounts: Sequence[int]) -> Bytes:
        result = np.array(amounts, dtype=np.int64)
        result[list(self.kernels)] = 0
        return result


def line_through(low: RunForGpu, batch: int, high: RunForGpu, other: int) -> BatchLine | None:
    """The line through two runs, if they do the same and differ by whole bytes for each image."""
    one, two = low.traced.trace.allocations, high.traced.trace.allocations
    if [_what(each) for each in one] != [_what(each) for each in two]:
        return None
    if low.how != "fake" or high.how != "fake":
        return None
    growths = [_Growth.between(*pair, other - batch) for pair in zip(one, two, strict=True)]
    each = [growth for growth in growths if growth is not None]
    return BatchLine(low, batch, each) if len(each) == len(one) else None


def line_from(run: RunForGpu) -> BatchLine | None:
    """The line from one run at `PRIME_BATCH`, if it was traced with fake tensors."""
    if run.how != "fake":
        return None
    each = [_Growth.from_prime(one) for one in run.traced.trace.allocations]
    return BatchLine(run, PRIME_BATCH, each)


class _Growth(NamedTuple):
    """What each image adds to one allocation.

    Attributes:
        bytes, low, high: to its size and its bounds.
        shapes: to those of the convolution that it is for; ``None`` where it is for none.
    """

    bytes: int
    low: int = 0
    high: int = 0
    shapes: tuple[tuple[int, ...], ...] | None = None

    @staticmethod
    def between(before: Allocation, after: Allocation, images: int) -> _Growth | None:
        """From allocations of two runs; ``None`` where it is no whole number for each image."""
        shapes = _shapes_between(before.kernel, after.kernel, images)
        # Workspaces do not lie on a line; where their convolution is known, they come from that.
        if shapes is not None:
            return _Growth(0, shapes=shapes)
        differences = [
            after.bytes - before.bytes,
            (after.low or 0) - (before.low or 0),
            (after.high or 0) - (before.high or 0),
        ]
        if any(one % images for one in differences):
            return None
        size, low, high = (one // images for one in differences)
        return _Growth(size, low, high)

    @staticmethod
    def from_prime(one: Allocation) -> _Growth:
        """From an allocation of a run at the prime batch."""
        if isinstance(one.kernel, Convolution):
            shapes = tuple(tuple(map(_part, shape)) for shape in _shapes(one.kernel))
            return _Growth(0, shapes=shapes)
        return _Growth(_part(one.bytes), _part(one.low or 0), _part(one.high or 0))

    def of(self, allocation: Allocation, more: int) -> Allocation:
        """The allocation with so many images more."""
        size, low, high = allocation.bytes, allocation.low, allocation.high
        kernel: object = allocation.kernel
        if self.shapes is None:
            size += more * self.bytes
            if low is not None and high is not None:
                low, high = low + more * self.low, high + more * self.high
        else:
            kernel = convolution = self.kernel_of(allocation, more)
            if size or high:
                bounds = bounds_of(convolution)
                size, low, high = bounds.bytes, bounds.low, bounds.high
        return allocation.sized(size, low, high, kernel)

    def kernel_of(self, allocation: Allocation, more: int) -> Any:  # noqa: ANN401 - a Convolution
        """Its convolution with so many images more."""
        kernel = allocation.kernel
        assert isinstance(kernel, Convolution)
        assert self.shapes is not None
        input, weight, output = (
            tuple(side + more * each for side, each in zip(shape, growth, strict=True))
            for shape, growth in zip(_shapes(kernel), self.shapes, strict=True)
        )
        return kernel._replace(input=input, weight=weight, output=output)


def _part(amount: int) -> int:
    """What each image of the prime batch adds."""
    return amount // PRIME_BATCH if amount % PRIME_BATCH == 0 else 0


def _shapes(kernel: Convolution) -> tuple[tuple[int, ...], ...]:
    return kernel.input, kernel.weight, kernel.output


def _shapes_between(
    before: object, after: object, images: int
) -> tuple[tuple[int, ...], ...] | None:
    if not isinstance(before, Convolution) or not isinstance(after, Convolution):
        return None
    return tuple(
        tuple((more - less) // images for less, more in zip(one, other, strict=True))
        for one, other in zip(_shapes(before), _shapes(after), strict=True)
    )


def _what(one: Allocation) -> tuple[object, ...]:
    """What is the same in a run of another batch.

    Moments count births and deaths. Where all births have theirs, deaths can have changed places
    between two births alone, as those of what autocast keeps do, and no peak depends on that.
    """
    kernel = one.kernel
    if isinstance(kernel, Convolution):
        kernel = kernel._replace(input=(), weight=kernel.weight[1:], output=())
    return one.owner, one.phase, one.operator, one.category, one.born, one.place, kernel
