"""Two times of the same work side by side, at least one of which is predicted for a GPU."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import Amount, Name, Path, Ratio, Text, Time
from layerbench.records.comparison import Change, Difference
from layerbench.records.kinds import Record
from layerbench.records.latency_estimate import Checked, TimeInterval
from layerbench.records.memory import Optimizer
from layerbench.records.rows import Branches, ModuleRow
from layerbench.records.workload import Frozen, Workload


class LatencySide(Frozen):
    """One of the two.

    Attributes:
        name: what the user called it.
        how: where its times come from.
        device: the card that they are predicted for, or the device that they were measured on.
        optimizer: of a training step.
        seconds: of the whole: predicted, or the median.
        interval: of a prediction, 90 % of measured times lie in such; of a median, 95 %.
        checked: how wrong such predictions were; ``None`` for what was measured.
    """

    name: Name
    how: Literal["predicted", "measured"]
    device: Name
    model_type: Name
    workload: Workload
    optimizer: Optimizer | None = None
    seconds: Time
    interval: TimeInterval
    checked: Checked | None = None


class LatencyChange(ModuleRow):
    """One module on both sides: inclusive times, without a verdict."""

    baseline_s: Time
    contender_s: Time
    ratio: Ratio | None = None


class LatencyComparison(Record):
    """A prediction beside another one, or beside what was measured.

    Attributes:
        threshold: ratios closer to 1 than this are the same to the reader (0.05 for 5 %).
        ratio: contender over baseline of the whole, and what it lies between: the errors of both
            sides are taken to be independent, but for the same prediction twice.
        verdict: SLOWER or FASTER where that interval lies beyond the threshold, SAME where it lies
            within, else UNCLEAR.
        held: of a prediction beside a measured time, whether its interval holds that; ``None`` of
            two predictions.
        rows: modules that have times on both sides. They have no verdict: the errors of single
            layers have not been checked.
        added, missing: paths of rows that only the contender, or only the baseline, has.
    """

    record: Literal["latency comparison"] = "latency comparison"
    baseline: LatencySide
    contender: LatencySide
    threshold: Amount
    ratio: Ratio
    ratio_low: Ratio
    ratio_high: Ratio
    verdict: Change
    held: bool | None = None
    rows: Branches[LatencyChange] = ()
    added: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()
    differences: tuple[Difference, ...] = Field(default=())
    notes: tuple[Text, ...] = ()

    @property
    def same_prediction(self) -> bool:
        """Whether one prediction stands on both sides: there is no doubt about its ratio."""
        predicted = self.baseline.how == self.contender.how == "predicted"
        return predicted and self.ratio_low == self.ratio == self.ratio_high

    @property
    def slower(self) -> bool:
        """Whether the contender is called SLOWER."""
        return self.verdict == "SLOWER"

    @property
    def disturbed(self) -> str:
        """Why nothing can be told; a prediction is disturbed by nothing."""
        return ""
