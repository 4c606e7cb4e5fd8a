"""Runs that stand for a GPU's at any batch, of which only a few are traced.

Where runs of different batches do the same things in the same order, those of others are read off
(`batch_line`). Where they do not, every batch is traced.
"""

from __future__ import annotations

from functools import cached_property

from layerbench.errors import LayerbenchError
from layerbench.profilers.memory.batch_line import (
    PRIME_BATCH,
    BatchLine,
    line_from,
    line_through,
)
from layerbench.profilers.memory.run_for_gpu import RunForGpu, in_its_process, run_for_gpu
from layerbench.records.memory import Optimizer
from layerbench.records.workload import OWN_WEIGHTS, Workload
from layerbench.zoo import Built
from layerbench.zoo.inputs import OWN

# One image often runs otherwise than several: a dimension of 1 is contiguous in any order.
LEAST = 2


class RunsByBatch:
    """One workload's runs.

    Args:
        workload: at the batch that is asked for first.
        optimizer, subject: as for `predict`.
        first: its run, where it is there already.
        at_prime: the run at `batch_line.PRIME_BATCH`, where it is there already, of `run_fake`.
    """

    def __init__(
        self,
        workload: Workload,
        optimizer: Optimizer | None = None,
        subject: Built | None = None,
        first: RunForGpu | None = None,
        at_prime: RunForGpu | None = None,
    ) -> None:
        self.workload = workload
        self._optimizer = optimizer
        self._subject = subject
        self._runs = {} if first is None else {workload.batch: first}
        self._at_prime = at_prime and in_its_process(at_prime, workload)

    @cached_property
    def can_change(self) -> bool:
        """Whether there are runs of other batches: a user's own model may take one alone."""
        if not can_change_batch(self.workload):
            return False
        if self.workload.weights != OWN_WEIGHTS or self._at_prime is not None:
            return True
        try:
            # Runs for real would take the memory and time of each batch here.
            return self._traced(max(LEAST, self.workload.batch) + 1).how == "fake"
        except LayerbenchError:
            return False

    def first(self) -> RunForGpu:
        """The run at the workload's own batch, traced."""
        return self._traced(self.workload.batch)

    def at(self, batch: int) -> RunForGpu:
        """The run at a batch: traced, or read off."""
        if batch in self._runs or batch < LEAST or self.line is None:
            return self._traced(batch)
        return self.line.at(batch)

    @cached_property
    def line(self) -> BatchLine | None:
        """What runs of `LEAST` images and more are read off; ``None`` where each is traced."""
        low = max(LEAST, self.workload.batch)
        prime = self._at_prime
        if prime is not None and (low == PRIME_BATCH or self.workload.batch not in self._runs):
            return line_from(prime)
        line = None
        if prime is not None:
            line = line_through(self._traced(low), low, prime, PRIME_BATCH)
        return line or line_through(self._traced(low), low, self._traced(low + 1), low + 1)

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
    """Whether other numbers of images can be asked about: not with inputs of the user's own.

    A model of the user's that has a name is built anew for each batch.
    """
    fixed = workload.input == OWN or workload.inputs is not None
    return not fixed and not workload.handed_over


def with_batch(workload: Workload, batch: int) -> Workload:
    """The same workload with another number of images."""
    shape = (batch, *workload.shape[1:])
    names = {"x".join(map(str, workload.shape)): "x".join(map(str, shape))}
    name = names.get(workload.input, workload.input)
    return workload.model_copy(update={"shape": shape, "batch": batch, "input": name})
