"""One workload's memory on many cards, from a trace or three in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerbench.profilers.memory.batches_on_card import Largest
from layerbench.profilers.memory.figures import figures
from layerbench.profilers.memory.largest_batch import fit_on, largest_batch
from layerbench.profilers.memory.runs_by_batch import RunsByBatch
from layerbench.profilers.progress import Progress, Silent
from layerbench.records.card import Card
from layerbench.records.memory import Fit, Interval


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
    runs: RunsByBatch, cards: Sequence[Card], *, progress: Progress | None = None
) -> tuple[MemoryOnCard, ...]:
    """Predict a workload's memory on each card, and the largest batch that fits there.

    Intervals leave out what other plans of cuDNN would take, which `predict` has.

    Args:
        runs: of the workload.
        cards: in the order of the answer.
        progress: hears of each card.

    Raises:
        ModelRunError, NotEnoughMemory: as `predict` does.
    """
    return tuple(_on(card, runs) for card in _each(cards, progress))


def largest_for_cards(
    runs: RunsByBatch, cards: Sequence[Card], *, progress: Progress | None = None
) -> tuple[Largest, ...]:
    """The largest batch that fits into the memory of each card.

    Args:
        runs: of the workload, whose batch can be changed.
        cards, progress: as for `predict_for_cards`.

    Raises:
        ModelRunError, NotEnoughMemory: as `predict` does.
    """
    return tuple(largest_batch(runs, card, card.memory_bytes) for card in _each(cards, progress))


def _each(cards: Sequence[Card], progress: Progress | None) -> Iterator[Card]:
    listener = progress or Silent()
    for number, card in enumerate(cards):
        listener.step("memory", number, len(cards))
        yield card


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
