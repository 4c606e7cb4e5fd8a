"""What a forward takes of energy: joules and watts. No torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from layerbench.records.bounds import Amount, Name, Positive, Text, Time, check_ordered
from layerbench.records.workload import Frozen


class Energy(Frozen):
    """The energy of one untouched forward, by counters of the hardware.

    Forwards are repeated for as long as a window lasts. A counter moves in steps, so a window is
    many of them long.

    Attributes:
        forward_j: joules of one forward: the mean over the windows.
        low_j, high_j: its 95 % interval by Student's distribution, widened by one step of the
            counters in each window.
        parts_j: of it, what each counter saw; they add up to ``forward_j``.
        power_w: mean power in the windows.
        forward_s: mean time of a forward in the windows.
        idle_w: mean power in one window before, in which this process slept; others may have run.
        limit_w: the most that the hardware allows itself; ``None`` where it does not say.
        windows, forwards: of all windows together.
        window_s: the shortest one.
        step_s: the longest time between two steps of a counter, as seen beforehand.
        counters: what was read, and by what.
    """

    forward_j: Amount
    low_j: Amount
    high_j: Amount
    parts_j: dict[Name, Amount] = Field(min_length=1)
    power_w: Amount
    forward_s: Time
    idle_w: Amount
    limit_w: Amount | None = None
    windows: Positive
    forwards: Positive
    window_s: Time
    step_s: Time
    counters: Text

    @model_validator(mode="after")
    def _in_order(self) -> Energy:
        check_ordered("the energy", self.low_j, self.high_j)
        return self
