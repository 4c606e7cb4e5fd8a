"""The same work on several cards that are not here, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, inf
from typing import Any, NamedTuple

from layerbench._version import __version__
from layerbench.environment.run_context import torch_version
from layerbench.errors import UsageError
from layerbench.profilers.latency.operators import OperatorTrace, trace_operators
from layerbench.profilers.latency.predicted import WholeTime, check_format, whole_of_trace
from layerbench.profilers.memory.figures import Verdict
from layerbench.profilers.memory.for_cards import largest_for_cards, predict_for_cards
from layerbench.profilers.memory.runs_by_batch import RunsByBatch, with_batch
from layerbench.profilers.progress import Progress
from layerbench.records.card import Card
from layerbench.records.card_estimates import CardEstimate, CardEstimates, Order
from layerbench.records.latency_estimate import LatencyEstimate, TimeInterval
from layerbench.records.memory import Interval, Optimizer
from layerbench.records.workload import Workload
from layerbench.zoo import Built

HOUR = 3600.0
# The largest batch is made a multiple of this, which kernels are made for.
_EVEN = 8
# Of a training that is traced: from the second on the optimizer has its state.
_STEPS = 2


class Job(NamedTuple):
    """What is to be done with a model.

    Attributes:
        samples: images of an epoch; ``None`` where nothing is totalled.
        epochs: how often.
        prices: of an hour on a card, by its name.
        batch: images of a forward or micro-batch; ``None`` for the largest that fits each card.
        spare: part of a card's memory that others have.
    """

    samples: int | None = None
    epochs: int = 1
    prices: Mapping[str, float] = {}
    batch: int | None = None
    spare: float = 0.0


def side_by_side(
    estimates: Sequence[LatencyEstimate], lacking: Iterable[tuple[Card, str]] = ()
) -> CardEstimates:
    """Predictions of one workload for several cards, a row each, in their order.

    Args:
        estimates: one at least.
        lacking: cards without a prediction, and why; they come last.
    """
    first = estimates[0]
    return CardEstimates(
        workload=first.workload,
        optimizer=first.optimizer,
        torch=first.torch,
        layerbench=first.layerbench,
        model_type=first.model_type,
        rows=(
            *(CardEstimate(card=one.card, **_timed(one)) for one in estimates),
            *(CardEstimate(card=card, absent=why) for card, why in lacking),
        ),
        notes=first.notes,
    )


def estimate_cards(
    workload: Workload,
    cards: Sequence[Card],
    job: Job,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    progress: Progress | None = None,
) -> CardEstimates:
    """Whether the work fits each card, how long it takes there, and what it costs.

    Args:
        workload: with the batch that is asked about; without one, with any.
        cards: to look at.
        job: what is to be done.
        optimizer: makes it a training.
        subject: a model that was handed over, with its inputs; its batch is that of the inputs.
        progress: hears of each card.

    Raises:
        ModelRunError: the model does not take the input.
        NotTraceable: only a real run would show its operators.
    """
    # First: it refuses what no time is predicted of.
    trace = trace_operators(workload, optimizer=optimizer, subject=subject, steps=_STEPS)
    at_prime = trace.run if trace.batch is None else None
    runs = RunsByBatch(workload, optimizer, subject, at_prime=at_prime)
    left = [_with_spare(card, job.spare) for card in cards]
    memory = _memory(runs, left, job, progress)
    rows = [
        _row(card, one, trace, workload, job, optimizer)
        for card, one in zip(cards, memory, strict=True)
    ]
    return CardEstimates(
        workload=workload,
        optimizer=optimizer,
        torch=torch_version(),
        layerbench=__version__,
        model_type=trace.modules[0].type,
        samples=job.samples,
        epochs=None if job.samples is None else job.epochs,
        order="cost" if job.prices else "time",
        rows=tuple(sorted(rows, key=_by("cost" if job.prices else "time"))),
        notes=tuple(dict.fromkeys(_notes(runs, trace, memory, job))),
    )


class _Memory(NamedTuple):
    """What is known of the work's memory on a card.

    Attributes:
        fits: whether the batch that was asked about does; without one, whether any does.
        largest: batch that fits; ``None`` where it cannot be changed.
        bytes, interval: of the batch that was asked about.
        notes: what the reader should know.
    """

    fits: Verdict
    largest: int | None
    notes: tuple[str, ...]
    bytes: int | None = None
    interval: Interval | None = None


def _memory(
    runs: RunsByBatch, cards: Sequence[Card], job: Job, progress: Progress | None
) -> list[_Memory]:
    if job.batch is None:
        found = largest_for_cards(runs, cards, progress=progress)
        return [_Memory("yes" if one.batch else "no", one.batch, one.notes) for one in found]
    asked = predict_for_cards(runs, cards, progress=progress)
    return [
        _Memory(one.fit.fits, one.fit.largest_batch, one.notes, one.total_bytes, one.total_interval)
        for one in asked
    ]


def _with_spare(card: Card, spare: float) -> Card:
    return card.model_copy(update={"memory_bytes": int(card.memory_bytes * (1 - spare))})


def _by(order: Order) -> Any:  # noqa: ANN401 - a function
    """What rows are sorted by; those without it come last, by what is known."""

    def key(row: CardEstimate) -> tuple[float, ...]:
        total = inf if row.total_s is None else row.total_s
        rate = row.images_per_s or 0.0
        cost = inf if row.cost is None else row.cost
        return (cost, total, -rate) if order == "cost" else (total, -rate)

    return key


def _row(
    card: Card,
    memory: _Memory,
    trace: OperatorTrace,
    workload: Workload,
    job: Job,
    optimizer: Optimizer | None,
) -> CardEstimate:
    asked = job.batch is not None
    held = {
        "fits": memory.fits,
        "largest_batch": memory.largest,
        "memory_bytes": memory.bytes,
        "memory_interval": memory.interval,
        "price": job.prices.get(card.name),
    }
    batch = workload.batch if asked else _even(memory.largest or 0)
    if memory.fits == "no":
        batch_of = f"a batch of {workload.batch} does not fit"
        return CardEstimate(card=card, absent=batch_of if asked else "no image fits", **held)
    try:
        check_format(card, workload)
    except UsageError as error:
        return CardEstimate(card=card, absent=str(error), **held)
    work = with_batch(workload, batch)
    if trace.batch not in (None, batch):
        trace = trace_operators(work, optimizer=optimizer)
    estimate = whole_of_trace(trace, work, card, optimizer)
    last = _last_step(trace, estimate, job)
    return CardEstimate(card=card, **held, **_timed(estimate), **_totalled(estimate, last, job))


def _even(largest: int) -> int:
    return largest // _EVEN * _EVEN if largest > _EVEN else largest


def _timed(estimate: LatencyEstimate | WholeTime) -> dict[str, Any]:
    return {
        "batch": estimate.workload.batch,
        "seconds": estimate.seconds,
        "interval": estimate.interval,
        "bound": estimate.bound,
        "images_per_s": estimate.images_per_s,
        "checked": estimate.checked,
    }


def _bounded(estimate: WholeTime | None) -> tuple[float, float, float]:
    """Seconds and their interval; of no step none."""
    if estimate is None:
        return 0.0, 0.0, 0.0
    return estimate.seconds, estimate.interval.low, estimate.interval.high


def _last_step(trace: OperatorTrace, estimate: WholeTime, job: Job) -> WholeTime | None:
    """An epoch's last step, which has the images that are left; ``None`` where none are."""
    rest = (job.samples or 0) % estimate.images
    if not rest:
        return None
    batch = ceil(rest / estimate.workload.gradient_accumulation)
    if trace.batch not in (None, batch):
        return estimate  # its inputs are the user's own
    work = with_batch(estimate.workload, batch)
    return whole_of_trace(trace, work, estimate.card, estimate.optimizer)


def _totalled(estimate: WholeTime, last: WholeTime | None, job: Job) -> dict[str, Any]:
    """The time of all steps, and what it costs."""
    if job.samples is None:
        return {}
    full = job.samples // estimate.images
    times = [
        job.epochs * (full * time + rest)
        for time, rest in zip(_bounded(estimate), _bounded(last), strict=True)
    ]
    total = {
        "total_s": times[0],
        "total_interval": TimeInterval(low=times[1], high=times[2]),
    }
    price = job.prices.get(estimate.card.name)
    if price is None:
        return total
    cost, low, high = (time / HOUR * price for time in times)
    return {**total, "cost": cost, "cost_low": low, "cost_high": high}


def _notes(
    runs: RunsByBatch, trace: OperatorTrace, memory: Iterable[_Memory], job: Job
) -> Iterable[str]:
    yield from trace.notes
    if runs.workload.ddp:
        yield (
            "Each card is one of several: figures are those of one, and exchanging gradients takes "
            "no time here."
        )
    for one in memory:
        yield from one.notes
    if job.spare:
        yield f"{100 * job.spare:.0f} % of each card's memory is left to others"
