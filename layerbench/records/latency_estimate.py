"""The time that a model takes on a GPU that is not here, predicted layer by layer."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Literal, Protocol, get_args

from pydantic import Field, model_validator

from layerbench.records.bounds import Amount, Count, Name, Shape, Text, Time, check_ordered, is_none
from layerbench.records.card import Card
from layerbench.records.kinds import Record
from layerbench.records.memory import Optimizer, Phase
from layerbench.records.rows import ModuleRow, Tree
from layerbench.records.workload import Frozen, Workload

Limit = Literal["compute", "memory", "launch"]
"""What an operator waits for: arithmetic, the memory, or the host that launches it."""
LIMITS: tuple[Limit, ...] = get_args(Limit)

COVERAGE = 0.9
"""Of the times that were held out of the fit, the part that an interval is made to hold."""


class TimeInterval(Frozen):
    """What a time is expected to lie between: of 90 % of such predictions it does."""

    low: Time
    high: Time

    @model_validator(mode="after")
    def _in_order(self) -> TimeInterval:
        check_ordered("the interval", self.low, self.high)
        return self


class Checked(Frozen):
    """How wrong predictions of one kind of question were, where times had been held out of the fit.

    Attributes:
        question: what is alike in all of them, in words.
        rows: times that were held out; 0 where no such question was checked.
        models: that the times are of.
        median_error: of them, as a part of the measured time.
        within: the part of them that the interval held.
    """

    question: Text
    rows: Count = 0
    models: Count | None = Field(default=None, exclude_if=is_none)
    median_error: Amount | None = None
    within: float | None = Field(default=None, ge=0, le=1)

    @property
    def known(self) -> bool:
        """Whether such a question was checked at all."""
        return self.rows > 0 and self.median_error is not None


class LatencyRow(ModuleRow):
    """One module, with what is predicted of it.

    Attributes:
        seconds: of the operators that ran in its calls, in all phases; ``None`` where it was not
            called.
        own_seconds: of those that ran in none of the modules that it calls.
        phases: ``seconds`` of a training step, apart.
        limit: what most of ``own_seconds`` is bound by; ``None`` where it runs nothing itself.
        flops, own_flops: a multiply-add is two.
        bytes, own_bytes: of the tensors that its operators read and write.
        operators, own_operators: that run at least one kernel each.
    """

    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: Count
    seconds: Time | None = None
    own_seconds: Time | None = None
    phases: dict[Phase, Time] = Field(default_factory=dict, exclude_if=operator.not_)
    limit: Limit | None = None
    flops: Count = 0
    own_flops: Count = 0
    bytes: Count = 0
    own_bytes: Count = 0
    operators: Count = 0
    own_operators: Count = 0
    note: Text = Field(default="", exclude_if=operator.not_)


class _Timed(Protocol):
    """What figures of a whole are made of."""

    @property
    def workload(self) -> Workload: ...

    @property
    def seconds(self) -> float: ...

    @property
    def limits(self) -> Mapping[Limit, float]: ...


class OfWhole:
    """Figures of a forward or step, for whatever has its workload, seconds and limits."""

    @property
    def bound(self: _Timed) -> Limit:
        """What most of the time is bound by."""
        return max(self.limits, key=lambda limit: self.limits[limit], default="launch")

    @property
    def images(self: _Timed) -> int:
        """Images of a forward, or of a step with all its micro-batches."""
        return self.workload.batch * self.workload.gradient_accumulation

    @property
    def images_per_s(self: _Timed) -> float:
        """Throughput; 0 where no time is predicted."""
        images = self.workload.batch * self.workload.gradient_accumulation
        return images / self.seconds if self.seconds else 0.0


class LatencyEstimate(Record, OfWhole):
    """A model's time on a card, predicted without it.

    Attributes:
        workload: in ``train`` mode with an optimizer a training step, else a forward.
        card: with the figures that the prediction was made of.
        seconds: of one forward, or one step.
        interval: what it is expected to lie between (90 %).
        limits: ``seconds`` by what they are bound by.
        phases: of a training step, apart.
        outside_s: of operators in no module: the loss, the engine of the backward.
        operators: that run at least one kernel each.
        rows: modules in tree order. Their own times and ``outside_s`` add up to ``seconds``.
        checked: how wrong predictions of this kind were.
        notes: what the reader should know.
    """

    record: Literal["latency estimate"] = "latency estimate"
    workload: Workload
    optimizer: Optimizer | None = Field(default=None, exclude_if=is_none)
    card: Card
    torch: Name
    layerbench: Name
    model_type: Name
    seconds: Time
    interval: TimeInterval
    limits: dict[Limit, Time]
    phases: dict[Phase, Time] = Field(default_factory=dict, exclude_if=operator.not_)
    outside_s: Time
    operators: Count
    rows: Tree[LatencyRow]
    checked: Checked
    notes: tuple[Text, ...] = ()

    @property
    def training(self) -> bool:
        """Whether it is of a training step."""
        return self.optimizer is not None
