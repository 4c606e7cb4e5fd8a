"""One workload's memory on many cards, from a trace or three in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerbench.profilers.memory.figures import figures
from layerbench.profilers.memory.largest_batch import fit_on
from layerbench.profilers.memory.runs_by_batch import RunsByBatch
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.card import Card
from layerbench.records.memory import Fit, Interval, Optimizer
from layerbench.records.workload import Workload
from layerbench.zoo import Built


@dataclass(frozen=True)
class MemoryOnCard:
    """What a workload needs on one card; bytes, as in `records.memory.MemoryEstimate`.

    Attributes:
        card: that it is for.
        peak_bytes, reserved_bytes, total_bytes: allocated, reserved, and with the context; each
            with its interval.
        fit: whether it fits into the card's memory, and the largest batch that does.
        notes: what the reader should know.
    """

    card: Card
    peak_bytes: int
    peak_interval: Interval
    reserved_bytes: int
    reserved_interval: Interval
    total_bytes: int
    total_interval: Interval
    fit: Fit
    notes: tuple[str, ...]


def predict_for_cards(
    workload: Workload,
    cards: Sequence[Card],
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    progress: Progress | None = None,
) -> tuple[MemoryOnCard, ...]:
    """Predict a workload's memory on each card, and the largest batch that fits there.

    Runs are traced at one batch and, for the largest batch, at two more; the others are read off.
    Intervals leave out what other plans of cuDNN would take, which `predict` has.

    Args:
        workload, optimizer, subject: as for `predict`.
        cards: in the order of the answer.
        progress: hears of each card.

    Raises:
        ModelRunError, NotEnoughMemory: as `predict` does.
    """
    runs = RunsByBatch(workload, optimizer, subject)
    listener = progress or Silent()
    answers = []
    for number, card in enumerate(cards):
        listener.step("memory", number, len(cards))
        answers.append(_on(card, runs))
    return tuple(answers)


def _on(card: Card, runs: RunsByBatch) -> MemoryOnCard:
    found = figures(runs.first(), card, bounds=False)
    return MemoryOnCard(
        card=card,
        peak_bytes=found.peak_bytes,
        peak_interval=found.peak,
        reserved_bytes=found.reserved_bytes,
        reserved_interval=found.reserved,
        total_bytes=found.total_bytes,
        total_interval=found.total,
        fit=fit_on(runs, card, card.memory_bytes, own=found),
        notes=found.device.notes,
    )
