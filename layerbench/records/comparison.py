"""Two measurements of one kind of work side by side, with a verdict on each row."""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    Amount,
    Count,
    Name,
    Path,
    Ratio,
    Text,
    Time,
    check_ordered,
    is_none,
)
from layerbench.records.compilation import KernelPart, Portion
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.rows import Branches, check_absent, check_distinct
from layerbench.records.timing import Kind
from layerbench.records.workload import Frozen, Plan, Workload

Change = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]
CHANGES: tuple[Change, ...] = ("SLOWER", "FASTER", "SAME", "UNCLEAR")

Method = Literal["one process", "processes", "live, one process", "live, processes"]


ONLY_WHOLE = "Only the whole model is compared"
"""Begins the note of a comparison whose rows have times of different things."""


class Side(Frozen):
    """One of the two.

    Attributes:
        name: what the user called it: a file, or a model with options.
        processes: fresh processes that it was measured in.
    """

    name: Name
    model_type: Name
    workload: Workload
    plan: Plan
    environment: Environment
    processes: Count


class Difference(Frozen):
    """Something that is not the same on both sides."""

    where: Literal["workload", "plan", "environment"]
    what: Name
    baseline: Text
    contender: Text


class _Place(Frozen):
    """Where a row stands, as in `layerbench.records.timing.LayerRow`."""

    path: Path
    type: Name
    kind: Kind
    depth: Count
    block: bool = False
    position: Count | None = None


class Judged(Frozen):
    """A time on both sides, and what is said of the change.

    Attributes:
        baseline_s, contender_s: inclusive times by the estimator of the ratio, which is theirs.
        ratio: contender over baseline.
        ratio_low, ratio_high: the 95 % interval of the ratio, of this row alone.
        p: how likely so large a ratio would be if the true one were no further from 1 than the
            threshold.
        verdict: docs/compare.md says how it comes about.
        note: such as another number of calls, or another type.
    """

    baseline_s: Time
    contender_s: Time
    ratio: Ratio
    ratio_low: Ratio
    ratio_high: Ratio
    p: float = Field(ge=0, le=1)
    verdict: Change
    note: Text = ""

    @model_validator(mode="after")
    def _in_order(self) -> Judged:
        check_ordered("the ratio", self.ratio_low, self.ratio_high)
        return self


# Fields stand in this order: those of the place are first.
class ComparedRow(Judged, _Place):
    """The whole model, a module or a function on both sides.

    Attributes:
        path, type, kind, depth, block, position: as in `layerbench.records.timing.LayerRow`;
            ``type`` is the contender's. The whole model's path is ``""``.
        baseline_s, contender_s, ratio, ratio_low, ratio_high, p, verdict, note: as in `Judged`.
    """


class Beside(Frozen):
    """A row of a model without kernels that a kernel does the work of.

    Attributes:
        path: of the module, or of the function.
        part: of the row's own time, that stands beside this kernel.
    """

    path: Path
    part: Portion


class ComparedKernel(Judged):
    """A kernel on both sides, or a kernel beside the layers that it does the work of.

    Attributes:
        baseline_s, contender_s, ratio, ratio_low, ratio_high, p, verdict, note: as in `Judged`.
        name: the kernel's; the contender's where the two differ in their number.
        module, function, layers: as in `layerbench.records.timing.KernelRow`.
        beside: where one side has no kernels, the rows whose own times are its time.
    """

    name: Text
    module: Path
    function: Text = ""
    layers: tuple[KernelPart, ...] = Field(default=(), exclude_if=operator.not_)
    beside: tuple[Beside, ...] = Field(default=(), exclude_if=operator.not_)


Kernels = Literal["kernels", "layers"]
"""What each kernel of one side stands beside on the other."""


class Comparison(Record):
    """What changed from one measurement to another.

    Attributes:
        method: where the spread between processes comes from; the first is the only one in
            which it is assumed, not measured.
        threshold: ratios closer to 1 than this are the same to the reader (0.05 for 5 %).
        allowance: what the machine itself may have changed by between two sides that were measured
            one after the other: a change must exceed threshold and allowance to be called, and the
            interval with the allowance lie within the threshold to be the same.
        clock_allowance: the same of the whole and of rows on an accelerator, for what its clock
            differed by where it was low on a side.
        alarm_rate: of the comparisons of a thing with itself, the share in which any row may be
            called SLOWER or FASTER by chance; 0 in records from before it was stated.
        void: why nothing can be told and every verdict is UNCLEAR, in one or two sentences; empty
            where something can.
        void_in_part: why some of the verdicts are UNCLEAR for that alone: what disturbed the host
            is in no time of a kernel, and what disturbed the device in no time of the host.
        whole: the untouched whole model.
        rows: modules and functions that were timed on both sides, in the contender's order.
        host_rows: the same rows on the host's clock, where both sides have an accelerator's times
            apart from it.
        kernels: of both sides, or of the compiled one beside the other's layers, in the order of
            the code where it is known.
        kernels_beside: which of the two; ``None`` where there are none.
        kernels_added, kernels_missing: names of kernels that only the contender, or only the
            baseline, has, and those that stand beside no layer.
        added, missing: paths of rows that only the contender, or only the baseline, has.
        differences: of workload, plan and environment.
        notes: what the reader should know about this comparison.
    """

    record: Literal["comparison"] = "comparison"
    baseline: Side
    contender: Side
    method: Method
    threshold: Amount
    allowance: Amount = 0.0
    clock_allowance: Amount = Field(default=0.0, exclude_if=operator.not_)
    alarm_rate: float = Field(default=0.0, ge=0, le=1, exclude_if=operator.not_)
    void: Text = Field(default="", exclude_if=operator.not_)
    void_in_part: Text = Field(default="", exclude_if=operator.not_)
    whole: ComparedRow
    rows: Branches[ComparedRow] = ()
    host_rows: Branches[ComparedRow] = Field(default=(), exclude_if=operator.not_)
    kernels: tuple[ComparedKernel, ...] = Field(default=(), exclude_if=operator.not_)
    kernels_beside: Kernels | None = Field(default=None, exclude_if=is_none)
    kernels_added: tuple[Text, ...] = Field(default=(), exclude_if=operator.not_)
    kernels_missing: tuple[Text, ...] = Field(default=(), exclude_if=operator.not_)
    added: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Comparison:
        if self.whole.path or self.whole.depth:
            raise ValueError("the whole model's own path is not empty")
        everywhere = [*(row.path for row in self.rows), *self.added, *self.missing]
        check_distinct("the row", everywhere)
        check_absent(everywhere)
        return self

    @property
    def disturbed(self) -> str:
        """Why verdicts are UNCLEAR, all or some, for what disturbed the measurement."""
        return self.void or self.void_in_part

    @property
    def slower(self) -> bool:
        """Whether the whole model, any row or any kernel is called SLOWER."""
        judged = (self.whole, *self.rows, *self.host_rows, *self.kernels)
        return any(one.verdict == "SLOWER" for one in judged)
