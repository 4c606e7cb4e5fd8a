"""Runs that stand for a GPU's at any batch, of which only a few are traced.

Where two runs of different batches do the same things in the same order, each storage's bytes and
each convolution's shape lie on a straight line through the two, and a run of another batch is read
off it. Where they do not, every batch is traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layerbench.instruments.storage_tracker import Allocation
from layerbench.profilers.memory.cudnn_plans import Convolution
from layerbench.profilers.memory.run_for_gpu import RunForGpu, run_for_gpu
from layerbench.profilers.memory.workspaces import bounds_of
from layerbench.records.memory import Optimizer
from layerbench.records.workload import OWN_WEIGHTS, Workload
from layerbench.zoo import Built
from layerbench.zoo.inputs import OWN

# One image often runs otherwise than several: a dimension of 1 is contiguous in any order.
_LEAST = 2


class RunsByBatch:
    """One workload's runs.

    Args:
        workload: at the batch that is asked for first.
        optimizer, subject: as for `predict`.
        first: its run, where it is there already.
    """

    def __init__(
        self,
        workload: Workload,
        optimizer: Optimizer | None = None,
        subject: Built | None = None,
        first: RunForGpu | None = None,
    ) -> None:
        self.workload = workload
        self._optimizer = optimizer
        self._subject = subject
        self._runs = {} if first is None else {workload.batch: first}
        self._line: _Line | None = None
        self._asked_for_line = False

    @property
    def can_change(self) -> bool:
        """Whether there are runs of other batches: the inputs are not a user's own."""
        return can_change_batch(self.workload)

    def first(self) -> RunForGpu:
        """The run at the workload's own batch, traced."""
        return self._traced(self.workload.batch)

    def at(self, batch: int) -> RunForGpu:
        """The run at a batch: traced, or read off."""
        if batch in self._runs or batch < _LEAST:
            return self._traced(batch)
        if not self._asked_for_line:
            self._asked_for_line = True
            low = max(_LEAST, self.workload.batch)
            self._line = _line(self._traced(low), low, self._traced(low + 1), low + 1)
        return self._traced(batch) if self._line is None else self._line.at(batch)

    def reads_off(self, batch: int) -> bool:
        """Whether the run at a batch that was asked for is read off."""
        return batch not in self._runs

    def _traced(self, batch: int) -> RunForGpu:
        run = self._runs.get(batch)
        if run is None:
            work = self.workload if batch == self.workload.batch else self._with_batch(batch)
            run = run_for_gpu(work, optimizer=self._optimizer, subject=self._subject)
            self._runs[batch] = run
        return run

    def _with_batch(self, batch: int) -> Workload:
        return with_batch(self.workload, batch)


def can_change_batch(workload: Workload) -> bool:
    """Whether other numbers of images can be asked about: not with inputs of the user's own."""
    fixed = workload.input == OWN or workload.inputs is not None
    return not fixed and workload.weights != OWN_WEIGHTS


def with_batch(workload: Workload, batch: int) -> Workload:
    """The same workload with another number of images."""
    shape = (batch, *workload.shape[1:])
    names = {"x".join(map(str, workload.shape)): "x".join(map(str, shape))}
    name = names.get(workload.input, workload.input)
    return workload.model_copy(update={"shape": shape, "batch": batch, "input": name})


class _Line:
    """Two runs that differ by one image."""

    def __init__(self, run: RunForGpu, batch: int, steps: Sequence[_Step]) -> None:
        self._run = run
        self._batch = batch
        self._steps = steps

    def at(self, batch: int) -> RunForGpu:
        more = batch - self._batch
        trace = self._run.traced.trace
        allocations = [
            step.of(allocation, more)
            for step, allocation in zip(self._steps, trace.allocations, strict=True)
        ]
        traced = replace(self._run.traced, trace=replace(trace, allocations=allocations))
        return replace(self._run, traced=traced)


class _Step:
    """How one allocation grows with each image."""

    __slots__ = ("_bytes", "_high", "_low", "_shapes")

    def __init__(self, before: Allocation, after: Allocation) -> None:
        self._bytes = after.bytes - before.bytes
        self._low = (after.low or 0) - (before.low or 0)
        self._high = (after.high or 0) - (before.high or 0)
        self._shapes = _shapes_grow(before.kernel, after.kernel)

    def of(self, allocation: Allocation, more: int) -> Allocation:
        size, low, high = allocation.bytes + more * self._bytes, allocation.low, allocation.high
        kernel = allocation.kernel
        if low is not None and high is not None:
            low, high = low + more * self._low, high + more * self._high
        if isinstance(kernel, Convolution) and self._shapes is not None:
            shapes = [
                tuple(one + more * step for one, step in zip(shape, steps, strict=True))
                for shape, steps in zip(_shapes(kernel), self._shapes, strict=True)
            ]
            kernel = kernel._replace(input=shapes[0], weight=shapes[1], output=shapes[2])
            if size or high:
                # These do not lie on a line.
                bounds = bounds_of(kernel)
                size, low, high = bounds.bytes, bounds.low, bounds.high
        return allocation.sized(size, low, high, kernel)


def _shapes(kernel: Convolution) -> tuple[tuple[int, ...], ...]:
    return kernel.input, kernel.weight, kernel.output


def _shapes_grow(before: object, after: object) -> tuple[tuple[int, ...], ...] | None:
    if not isinstance(before, Convolution) or not isinstance(after, Convolution):
        return None
    return tuple(
        tuple(more - less for less, more in zip(one, other, strict=True))
        for one, other in zip(_shapes(before), _shapes(after), strict=True)
    )


def _line(low: RunForGpu, batch: int, high: RunForGpu, next_batch: int) -> _Line | None:
    """The line through both, if they do the same."""
    assert next_batch == batch + 1
    one, other = low.traced.trace.allocations, high.traced.trace.allocations
    if [_what(each) for each in one] != [_what(each) for each in other]:
        return None
    if low.how != "fake" or high.how != "fake":
        return None
    return _Line(low, batch, [_Step(*pair) for pair in zip(one, other, strict=True)])


def _what(one: Allocation) -> tuple[object, ...]:
    """What is the same in a run of another batch.

    Moments count births and deaths. Where all births have theirs, deaths can have changed places
    between two births alone, as those of what autocast keeps do, and no peak depends on that.
    """
    kernel = one.kernel
    if isinstance(kernel, Convolution):
        kernel = kernel._replace(input=(), weight=kernel.weight[1:], output=())
    return one.owner, one.phase, one.operator, one.category, one.born, one.place, kernel
