"""What a model's tensors need: measured in a run (`MemoryReport`) or predicted (`MemoryEstimate`).

Bytes are those of the tensors' storages as they were asked for. ``block_bytes`` are what an
allocator that hands out multiples of 512 bytes, as CUDA's caching allocator does, takes for them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    MOST_INTEGER,
    Count,
    Integer,
    Name,
    Path,
    Shape,
    Text,
    check_ordered,
    is_none,
)
from layerbench.records.card import Card
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.peers import MemlabReport
from layerbench.records.rows import ModuleRow, Tree
from layerbench.records.workload import Frozen, Workload

Category = Literal[
    "parameters",
    "buffers",
    "input",
    "gradients",
    "optimizer state",
    "activations",
    "workspace",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

Phase = Literal["load", "forward", "loss", "backward", "recomputation", "optimizer"]
"""``recomputation``: a forward that runs again within the backward."""
PHASES: tuple[Phase, ...] = get_args(Phase)

Optimizer = Literal["sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad"]


def named_optimizer(name: str) -> Optimizer | None:
    """The optimizer that steps are made with; ``None`` for a class of a user's own."""
    return next((one for one in get_args(Optimizer) if one == name), None)


class TensorRow(Frozen):
    """One tensor that is there before the model runs.

    Attributes:
        bytes: of its elements; of a sparse tensor, those of indices and values.
        block_bytes: of the storages that it lies in.
        note: what kind of tensor it is, where it is no plain one.
    """

    name: Path
    role: Literal["parameter", "buffer", "input"]
    shape: Shape
    dtype: Name
    elements: Count
    bytes: Count
    block_bytes: Count
    note: Text = ""


class Totals(Frozen):
    """Sums over tensors, what several share counted once."""

    tensors: Count
    elements: Count
    bytes: Count
    block_bytes: Count


class MemoryRow(ModuleRow):
    """One module.

    Attributes:
        allocated: bytes of all storages that the module and those below it allocated, in all
            phases, freed ones included.
        self_allocated: without the modules below it.
        kept: of those allocated in the forward, the bytes still alive when the forward had
            ended: what is saved for the backward, and the model's output.
        self_kept: without the modules below it.
        live_peak: the most bytes of all tensors together at any moment while it ran.
        at_peak: of ``allocated``, the bytes that were alive at the peak of the run.
        self_at_peak: those of them that it allocated itself.
            See `MemoryReport.outside_bytes` for what they add up to.
        note: what a reader should know, such as other names it goes by.
    """

    output_shapes: tuple[Shape, ...] = ()
    parameters: Count
    allocated: Count | None = None
    self_allocated: Count | None = None
    kept: Count | None = None
    self_kept: Count | None = None
    live_peak: Count | None = None
    at_peak: Count | None = None
    self_at_peak: Count | None = None
    note: Text = Field(default="", exclude_if=operator.not_)


class Peak(Frozen):
    """The moment with the most bytes alive.

    Attributes:
        bytes: alive then.
        owner: path of the module running then; ``""`` is the model itself, ``None`` outside it
            (loss, optimizer).
        phase: what was going on.
        operator: the operator that reached it.
        by_category: bytes alive then; adds up to ``bytes``.
    """

    bytes: Count
    owner: Path | None
    phase: Phase
    operator: Name
    by_category: dict[Category, Count]


OUTSIDE_ROW: Literal[-1] = -1
"""In place of a row's index: what no module allocated."""

_RowIndex = Annotated[int, Field(ge=OUTSIDE_ROW, le=MOST_INTEGER)]


class TimelinePoint(Frozen):
    """A stretch of the run in which one module was running.

    Attributes:
        owner: index into ``rows``; ``None`` outside the model.
        phase: what was going on.
        live_max: the most bytes alive during the stretch; ``live_end``: at its end.
        changes: pairs of an index into ``rows`` (`OUTSIDE_ROW` for none) and by how many bytes
            what that module allocated has grown or shrunk. Those of all points up to one add up to
            what is alive at its end, by the module that allocated it. Records of before the field
            have none.
        within: indices of the rows in whose calls the owner ran, where these are not just the rows
            above it: it was called from elsewhere.
    """

    owner: Count | None
    phase: Phase
    live_max: Count
    live_end: Count
    changes: tuple[tuple[_RowIndex, Integer], ...] = Field(default=(), exclude_if=operator.not_)
    within: tuple[Count, ...] = Field(default=(), exclude_if=operator.not_)


def _check_timeline(rows: Sequence[MemoryRow], timeline: Sequence[TimelinePoint]) -> None:
    """Refuse a timeline that refers to missing rows.

    Raises:
        ValueError: says what is wrong.
    """
    for number, point in enumerate(timeline):
        named = [*(row for row, _ in point.changes), *point.within]
        named += [] if point.owner is None else [point.owner]
        if max(named, default=OUTSIDE_ROW) >= len(rows):
            raise ValueError(f"stretch {number} of the timeline tells of a row that is not there")


class ProcessMemory(Frozen):
    """The process's resident set, in bytes, as the operating system counts it."""

    before: Count
    peak: Count


class AllocatorFigures(Frozen):
    """What the device's allocator said, in bytes: at its peak, or now."""

    allocated: Count
    reserved: Count


class MemoryReport(Record):
    """Memory measured in a real run.

    Attributes:
        training: whether a training step ran (forward, backward, optimizer), else one forward.
        optimizer: of the training step.
        tensors: parameters, buffers and inputs, each with name and size.
        parameters, buffers, inputs, total: sums over them.
        resident_bytes: of ``tensors``; they are there all the time.
        outside_bytes: alive at the peak and allocated outside any module: the loss, the
            optimizer's state. ``resident_bytes``, ``outside_bytes`` and all rows'
            ``self_at_peak`` add up to ``peak.bytes`` exactly.
        peak: the moment with the most bytes of tensors alive.
        rows: modules in tree order.
        timeline: how the live bytes went.
        process: the process's resident set beside it; ``None`` where it cannot be read.
        allocator: the device's own figures; ``None`` on the CPU.
        memlab: pytorch-memlab's account of the same run; ``None`` where it was not asked for.
    """

    record: Literal["memory"] = "memory"
    workload: Workload
    training: bool
    optimizer: Optimizer | None
    environment: Environment
    model_type: Name
    tensors: tuple[TensorRow, ...]
    parameters: Totals
    buffers: Totals
    inputs: Totals
    total: Totals
    resident_bytes: Count
    outside_bytes: Integer
    peak: Peak
    rows: Tree[MemoryRow]
    timeline: tuple[TimelinePoint, ...]
    process: ProcessMemory | None = None
    allocator: AllocatorFigures | None = None
    notes: tuple[Text, ...] = ()
    memlab: MemlabReport | None = Field(default=None, exclude_if=is_none)

    @model_validator(mode="after")
    def _consistent(self) -> MemoryReport:
        _check_timeline(self.rows, self.timeline)
        return self


class Interval(Frozen):
    """Bounds in bytes that the figure is expected to lie between."""

    low: Count
    high: Count

    @model_validator(mode="after")
    def _in_order(self) -> Interval:
        check_ordered("the interval", self.low, self.high)
        return self


class Workspace(Frozen):
    """One stated term of what libraries and the driver take besides tensors.

    Attributes:
        name: what it is.
        bytes, low, high: the figure in the estimate, and its bounds.
        inside: whether PyTorch's allocator hands it out (and so its counters hold it).
        why: where the figure comes from.
    """

    name: Name
    bytes: Count
    low: Count
    high: Count
    inside: bool
    why: Text

    @model_validator(mode="after")
    def _in_order(self) -> Workspace:
        check_ordered(self.name[:80], self.low, self.high)
        return self


class Fit(Frozen):
    """Whether it fits into a device's memory.

    Attributes:
        memory_bytes: of the device.
        fits: yes where even the interval's upper bound does, no where its lower bound does
            not, else unclear.
        largest_batch: the largest batch whose upper bound fits; 0 if none does, ``None`` where
            the batch cannot be changed.
        largest_batch_peak: its upper bound, context included.
    """

    memory_bytes: Count
    fits: Literal["yes", "no", "unclear"]
    largest_batch: Count | None
    largest_batch_peak: Count | None


class MemoryEstimate(Record):
    """A device's memory predicted without it.

    Attributes:
        device: the kind of device it is for, or the card's name.
        card: that it is for; ``None`` where none is named.
        how: ``fake`` where fake tensors of that device ran, ``replayed`` where a real CPU run's
            tensors were put through the model of the allocator.
        peak_bytes: the most that PyTorch's allocator has handed out at once
            (``torch.cuda.max_memory_allocated``), and its interval.
        reserved_bytes: the most it has taken from the device (``max_memory_reserved``), and its
            interval.
        total_bytes: reserved and the context: what the device's own tools show.
        by_category: bytes of the blocks alive at the peak; adds up to ``peak_bytes``.
        peak_owner: the module running then; ``None`` outside the model.
        workspaces: the stated terms.
    """

    record: Literal["memory estimate"] = "memory estimate"
    workload: Workload
    device: Name
    card: Card | None = Field(default=None, exclude_if=is_none)
    how: Literal["fake", "replayed"]
    training: bool
    optimizer: Optimizer | None
    torch: Name
    layerbench: Name
    model_type: Name
    peak_bytes: Count
    peak_interval: Interval
    reserved_bytes: Count
    reserved_interval: Interval
    total_bytes: Count
    total_interval: Interval
    peak_owner: Path | None
    peak_phase: Phase
    peak_operator: Name
    by_category: dict[Category, Count]
    rows: Tree[MemoryRow]
    timeline: tuple[TimelinePoint, ...]
    workspaces: tuple[Workspace, ...]
    fit: Fit | None = None
    notes: tuple[Text, ...] = ()

    @property
    def on(self) -> str:
        """What it is for, as a reader knows it: ``NVIDIA T4 (t4)``, or ``cuda``."""
        return self.device if self.card is None else f"{self.card.title} ({self.device})"

    @model_validator(mode="after")
    def _consistent(self) -> MemoryEstimate:
        _check_timeline(self.rows, self.timeline)
        return self
