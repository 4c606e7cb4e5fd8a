"""Whether a workload fits into a device's memory, and the largest batch that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layerbench.profilers.memory.batches_on_card import (
    MOST_LOOKS,
    Known,
    Largest,
    largest_on,
)
from layerbench.profilers.memory.figures import Figures, Verdict, figures
from layerbench.profilers.memory.on_card import OnDevice, on_device
from layerbench.profilers.memory.run_for_gpu import RunForGpu
from layerbench.profilers.memory.runs_by_batch import LEAST, RunsByBatch
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.card import Card
from layerbench.records.memory import Fit, MemoryEstimate

# Memory is nearly linear in the batch, so that straight lines find the limit in a handful of
# predictions; where it is not, the gap is halved from then on.
STRAIGHT_LOOKS = 8
MOST_GROWTH = 64
# Of a large batch a hundredth more or less is beyond what a prediction knows.
_CLOSE = 100


def with_fit(
    estimate: MemoryEstimate,
    memory_bytes: int,
    *,
    run: RunForGpu | None = None,
    look: bool = True,
    progress: Progress | None = None,
) -> MemoryEstimate:
    """The estimate with the answer for a device of this much memory.

    Args:
        estimate: of the workload as the user gave it.
        memory_bytes: of the device; what other programs hold is not taken off.
        run: that the estimate is of; it is run again where a card's answer needs it.
        look: for the largest batch.
        progress: hears of each prediction on the way to the largest batch.
    """
    runs = RunsByBatch(estimate.workload, estimate.optimizer, first=run)
    if estimate.card is not None:
        fit = fit_on(runs, estimate.card, memory_bytes, look=look, progress=progress)
        return estimate.model_copy(update={"fit": fit})
    total = estimate.total_interval
    verdict: Verdict = "unclear" if total.low <= memory_bytes else "no"
    if total.high <= memory_bytes:
        verdict = "yes"
    known = {estimate.workload.batch: total.high}
    needs = _Needs(runs, None, memory_bytes, progress or Silent(), known)
    return estimate.model_copy(update={"fit": needs.fit(verdict, look)})


def fit_on(
    runs: RunsByBatch,
    card: Card,
    memory_bytes: int,
    *,
    look: bool = True,
    own: Figures | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Whether a workload fits into this much memory of a card, and the largest batch that does.

    Args:
        runs: of the workload, by batch.
        card: that has the memory.
        memory_bytes: of the device.
        look: for the largest batch.
        own: figures at the workload's own batch, where they are there.
        progress: hears of each look on the way to it.

    Returns:
        the largest batch whose upper bound fits: 0 where not even 1 does, ``None`` where it was not
        looked for, or cannot be changed.
    """
    own = figures(runs.first(), card, memory_bytes) if own is None else own
    verdict = own.verdict(memory_bytes)
    if not (look and runs.can_change):
        return Fit(
            memory_bytes=memory_bytes, fits=verdict, largest_batch=None, largest_batch_peak=None
        )
    batch, needed = runs.workload.batch, own.needed(memory_bytes)
    largest = largest_batch(runs, card, memory_bytes, Known(batch, needed), progress=progress)
    return Fit(
        memory_bytes=memory_bytes,
        fits=verdict,
        largest_batch=largest.batch,
        largest_batch_peak=largest.bytes or None,
    )


def largest_batch(
    runs: RunsByBatch,
    card: Card,
    memory_bytes: int,
    known: Known | None = None,
    *,
    progress: Progress | None = None,
) -> Largest:
    """The largest batch of a workload that fits into this much memory of a card.

    Args:
        runs: of the workload, by batch; its batch can be changed.
        card: that has the memory.
        memory_bytes: of the device.
        known: a batch whose need is known.
        progress: hears of each look on the way to it.
    """
    listener = progress or Silent()
    line = runs.line
    if line is None:
        needs = {} if known is None else {known.batch: known.bytes}
        traced = _Needs(runs, card, memory_bytes, listener, needs)
        batch = _search(traced.of, runs.workload.batch, memory_bytes, close=True)
        return Largest(batch, traced.of(batch) if batch else 0, traced.notes)
    found = largest_on(line, card, memory_bytes, known, progress=listener)
    if found.batch >= LEAST:
        return found
    one = Figures(on_device(runs.at(1), card, memory_bytes, bounds=False))
    needed = one.needed(memory_bytes)
    return Largest(1, needed, found.notes) if needed <= memory_bytes else Largest(0, 0, found.notes)


class _Needs:
    """What batches need at most."""

    def __init__(
        self,
        runs: RunsByBatch,
        card: Card | None,
        memory_bytes: int,
        progress: Progress,
        known: dict[int, int],
    ) -> None:
        self._runs = runs
        self._card = card
        self._memory_bytes = memory_bytes
        self._progress = progress
        self._known = known

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the card, what the reader should know."""
        return on_device(self._runs.first(), self._card, bounds=False).notes

    def fit(self, verdict: Verdict, look: bool) -> Fit:
        start, limit = self._runs.workload.batch, self._memory_bytes
        largest = _search(self.of, start, limit) if look and self._runs.can_change else None
        return Fit(
            memory_bytes=limit,
            fits=verdict,
            largest_batch=largest,
            largest_batch_peak=self._known[largest] if largest else None,
        )

    def of(self, batch: int) -> int:
        if batch not in self._known:
            self._progress.step("largest batch", len(self._known), MOST_LOOKS)
            self._known[batch] = Figures(self._device(batch)).needed(self._memory_bytes)
        return self._known[batch]

    def _device(self, batch: int) -> OnDevice:
        run = self._runs.at(batch)
        return on_device(run, self._card, self._memory_bytes, bounds=self._card is None)


def _search(peak: Callable[[int], int], start: int, limit: int, close: bool = False) -> int:
    """The largest batch with ``peak(batch) <= limit``, for a peak that grows with the batch.

    With ``close``, of large batches within a hundredth.
    """
    below, above = 0, None
    known: dict[int, int] = {}
    candidate = start
    while above is None or above - below > max(1, below // _CLOSE if close else 0):
        known[candidate] = peak(candidate)
        if known[candidate] <= limit:
            below = candidate
        else:
            above = candidate
        if above is None:
            candidate = _further(known, below, limit)
        elif len(known) < STRAIGHT_LOOKS and below and known[below] < limit:
            candidate = _between(known, below, above, limit)
        else:
            candidate = (below + above) // 2
    return below


def _further(known: Mapping[int, int], below: int, limit: int) -> int:
    """Where the line through the largest two meets the limit, or twice as far without two."""
    if known[below] == limit:
        # There smaller workspaces do, and how much is left cannot be told.
        return below + max(1, below // 8)
    others = [batch for batch in known if batch < below]
    if not others:
        return 2 * below
    slope = (known[below] - known[max(others)]) / (below - max(others))
    if slope <= 0:
        return 2 * below
    return min(max(below + int((limit - known[below]) / slope), below + 1), MOST_GROWTH * below)


def _between(known: Mapping[int, int], below: int, above: int, limit: int) -> int:
    """Where the line through the two meets the limit, strictly between them."""
    share = (limit - known[below]) / max(1, known[above] - known[below])
    return min(max(below + int(share * (above - below)), below + 1), above - 1)
