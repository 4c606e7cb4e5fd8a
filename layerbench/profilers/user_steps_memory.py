"""What the tensors of one training step hold that its user's own loop runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from layerbench.instruments.compiled import COMPILED, any_compiled
from layerbench.instruments.memory_attribution import (
    FORWARD,
    FORWARD_END,
    ITERATION,
    Holding,
    hold,
)
from layerbench.instruments.modes import Observing
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import CallFacts, ModuleFacts
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.storage_tracker import LOADED, StorageTracker
from layerbench.introspection.modules import parameters
from layerbench.introspection.nested import tensors_in
from layerbench.profilers.memory.traced_run import Recomputed, note_loaded
from layerbench.records.memory import Category
from layerbench.records.samples import RowFacts

FAILED = "no whole step was traced"
UPDATED = "updated"
"""The moment when the last update so far has ended."""


class LoopMemory:
    """Traces the storages of one step, from its first forward to its last update.

    Args:
        model: that the loop trains.
        facts: of its modules.
        running: is told of their calls.
        kind: of the device that the model is on.
        optimizers: whose state is told from other tensors.

    Attributes:
        absent: why there are no figures; empty where there are.
    """

    def __init__(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        running: RunningModule,
        kind: str,
        optimizers: Sequence[Optimizer],
    ) -> None:
        self.absent = COMPILED if any_compiled(model) else ""
        self._model = model
        self._running = running
        self._optimizers = optimizers
        self._tracker = StorageTracker(running, kind)
        self._observing = Observing(self._tracker, beneath=True)
        self._again = Recomputed(model, facts, running, self._tracker)
        self._on = ExitStack()
        self._begun = False

    @contextmanager
    def forward(self, given: object) -> Iterator[None]:
        """Entered around a forward.

        Args:
            given: what the model is called with.
        """
        if self.absent:
            yield
            return
        if not self._begun:
            self._begin()
        self._running.forget()
        for tensor in tensors_in(given):
            self._tracker.add(tensor, "input")
        self._tracker.mark(FORWARD)
        with self._tracker.during("forward"):
            yield
        self._tracker.mark(FORWARD_END)
        self._tracker.phase = "loss"

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Entered around a backward."""
        if not self._begun:
            yield
            return
        with self._tracker.during("backward"), self._again.followed():
            yield
        self._note("gradients", (one.grad for one in parameters(self._model)))
        self._tracker.phase = "optimizer"

    @contextmanager
    def update(self) -> Iterator[None]:
        """Entered around an update."""
        if not self._begun:
            yield
            return
        with self._tracker.during("optimizer"):
            yield
        self._note_states()
        self._tracker.mark(UPDATED)

    def fetching(self) -> None:
        """A batch is fetched."""
        self._tracker.phase = "load"

    def close(self) -> None:
        """Take everything off."""
        self._on.close()

    def held(self, rows: Sequence[RowFacts], calls: Mapping[str, CallFacts]) -> Holding | None:
        """What the step held; ``None`` where that is not known, which `absent` explains.

        Args:
            rows: of the modules.
            calls: of those that ran.
        """
        self.close()
        self.absent = self.absent or self._observing.unseen or ("" if self._begun else FAILED)
        if self.absent:
            return None
        trace = self._tracker.finish()
        # What the loop does after its last update is no part of the step.
        trace.cut(trace.marks.get(UPDATED, trace.marks["end"]))
        sizes = [allocation.bytes for allocation in trace.allocations]
        return hold(trace, sizes, rows, calls)

    def _begin(self) -> None:
        self._begun = True
        note_loaded(self._tracker, self._model)
        self._note("gradients", (one.grad for one in parameters(self._model)))
        self._note_states()
        self._tracker.mark(LOADED)
        self._tracker.mark(ITERATION)
        self._on.enter_context(recomputations_told(self._again))
        self._on.enter_context(self._observing.on())
        self._on.enter_context(self._tracker.random_states_seen())

    def _note_states(self) -> None:
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                self._note("optimizer state", tensors_in(state))

    def _note(self, category: Category, tensors: Iterable[torch.Tensor | None]) -> None:
        for tensor in tensors:
            if tensor is not None:
                self._tracker.add(tensor, category)
