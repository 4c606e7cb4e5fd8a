"""What several cards that are not here would take for the same work, side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import Amount, Count, Name, Positive, Text, Time
from layerbench.records.card import Card
from layerbench.records.kinds import Record
from layerbench.records.latency_estimate import Checked, Limit, TimeInterval
from layerbench.records.memory import Interval, Optimizer
from layerbench.records.workload import Frozen, Workload

Order = Literal["given", "time", "cost"]


class CardEstimate(Frozen):
    """One card; what is not known of it is ``None``, for the reason in ``absent``.

    Attributes:
        batch: images of a forward or micro-batch that the figures are of.
        fits: whether that batch does, as in `layerbench.records.memory.Fit`.
        largest_batch: whose upper bound of memory fits; 0 if none does.
        memory_bytes: predicted total with the batch, context included, and its interval.
        seconds: of a forward or a step with the batch, and its interval (90 %).
        bound: what most of it is bound by.
        images_per_s: throughput.
        total_s: of all samples and epochs, and its interval.
        price: of an hour, in whatever currency the user has; ``cost``: of ``total_s``, and its
            interval.
    """

    card: Card
    batch: Positive | None = None
    fits: Literal["yes", "no", "unclear"] | None = None
    largest_batch: Count | None = None
    memory_bytes: Count | None = None
    memory_interval: Interval | None = None
    seconds: Time | None = None
    interval: TimeInterval | None = None
    bound: Limit | None = None
    images_per_s: Amount | None = None
    checked: Checked | None = None
    total_s: Time | None = None
    total_interval: TimeInterval | None = None
    price: Amount | None = None
    cost: Amount | None = None
    cost_low: Amount | None = None
    cost_high: Amount | None = None
    absent: Text = ""


class CardEstimates(Record):
    """The same work on several cards.

    Attributes:
        workload: with the batch that was asked for; where none was, each row has its own.
        optimizer: of a training step.
        samples, epochs: of the training or inference that is totalled; ``None`` where none is.
        order: what the rows are sorted by.
        rows: a card each, the best first.
        notes: what the reader should know.
    """

    record: Literal["card estimates"] = "card estimates"
    workload: Workload
    optimizer: Optimizer | None = None
    torch: Name
    layerbench: Name
    model_type: Name
    samples: Positive | None = None
    epochs: Positive | None = None
    order: Order = "given"
    rows: tuple[CardEstimate, ...] = Field(min_length=1)
    notes: tuple[Text, ...] = ()
