"""Whether a workload fits into a device's memory, and the largest batch that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from layerbench.profilers.memory.predicted import predict
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.memory import Fit, MemoryEstimate
from layerbench.records.workload import OWN_WEIGHTS, Workload
from layerbench.zoo.inputs import OWN

# Memory is nearly linear in the batch, so that straight lines find the limit in a handful of
# predictions; where it is not, the gap is halved from then on.
STRAIGHT_LOOKS = 8
MOST_LOOKS = 20
MOST_GROWTH = 64


def with_fit(
    estimate: MemoryEstimate, memory_bytes: int, *, progress: Progress | None = None
) -> MemoryEstimate:
    """The estimate with the answer for a device of this much memory.

    Args:
        estimate: of the workload as the user gave it.
        memory_bytes: of the device; what other programs hold is not taken off.
        progress: hears of each prediction on the way to the largest batch.
    """
    batch, peak = largest_batch(estimate, memory_bytes, progress or Silent())
    fit = Fit(
        memory_bytes=memory_bytes,
        fits=_verdict(estimate, memory_bytes),
        largest_batch=batch,
        largest_batch_peak=peak,
    )
    return estimate.model_copy(update={"fit": fit})


def _verdict(estimate: MemoryEstimate, memory_bytes: int) -> Literal["yes", "no", "unclear"]:
    if estimate.total_interval.high <= memory_bytes:
        return "yes"
    return "no" if estimate.total_interval.low > memory_bytes else "unclear"


def largest_batch(
    estimate: MemoryEstimate, memory_bytes: int, progress: Progress
) -> tuple[int | None, int | None]:
    """The largest batch whose upper bound fits, and that bound; 0 and ``None`` if not even 1 does.

    ``None`` twice where the batch cannot be changed: inputs that a user's own callable brings.
    """
    if not _can_change_batch(estimate.workload):
        return None, None
    peaks = {estimate.workload.batch: estimate.total_interval.high}

    def peak(batch: int) -> int:
        if batch not in peaks:
            progress.step("largest batch", len(peaks), MOST_LOOKS)
            peaks[batch] = predict_at(estimate, batch)
        return peaks[batch]

    largest = _search(peak, estimate.workload.batch, memory_bytes)
    return largest, peaks.get(largest)


def predict_at(estimate: MemoryEstimate, batch: int) -> int:
    """The upper bound of all memory with another batch."""
    changed = with_batch(estimate.workload, batch)
    again = predict(changed, optimizer=estimate.optimizer, card=estimate.card)
    return again.total_interval.high


def with_batch(workload: Workload, batch: int) -> Workload:
    """The same workload with another number of images."""
    shape = (batch, *workload.shape[1:])
    names = {"x".join(map(str, workload.shape)): "x".join(map(str, shape))}
    name = names.get(workload.input, workload.input)
    return workload.model_copy(update={"shape": shape, "batch": batch, "input": name})


def _can_change_batch(workload: Workload) -> bool:
    fixed = workload.input == OWN or workload.inputs is not None
    return not fixed and workload.weights != OWN_WEIGHTS


def _search(peak: Callable[[int], int], start: int, limit: int) -> int:
    """The largest batch with ``peak(batch) <= limit``, for a peak that grows with the batch."""
    below, above, looks = 0, None, 0
    candidate = start
    while above is None or above - below > 1:
        if peak(candidate) <= limit:
            below = candidate
        else:
            above = candidate
        looks += 1
        if above is None:
            candidate = _further(peak, below, limit)
        elif looks < STRAIGHT_LOOKS and below:
            candidate = _between(peak, below, above, limit)
        else:
            candidate = (below + above) // 2
    return below


def _further(peak: Callable[[int], int], below: int, limit: int) -> int:
    """Where the line through ``below`` and its half meets the limit."""
    half = below // 2
    if half == 0:
        return 2 * below
    slope = (peak(below) - peak(half)) / (below - half)
    if slope <= 0:
        return 2 * below
    return min(max(below + int((limit - peak(below)) / slope), below + 1), MOST_GROWTH * below)


def _between(peak: Callable[[int], int], below: int, above: int, limit: int) -> int:
    """Where the line through the two meets the limit, strictly between them."""
    share = (limit - peak(below)) / max(1, peak(above) - peak(below))
    return min(max(below + int(share * (above - below)), below + 1), above - 1)
