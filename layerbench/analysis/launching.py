"""Whether an accelerator waits for the host to launch its work: in a forward, a step, a row.

The host's time of a layer is what Python and PyTorch take to launch it, the device's time what its
kernels take. A device that is done before the next kernel is launched waits: a faster one would not
help. Records whose device times hold the launching, as those of before `DeviceRounds`, tell this of
the whole alone. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from layerbench.analysis.portions import part_of
from layerbench.records.timing import DeviceRounds, LayerRow, Profile, Summary
from layerbench.records.training_step import PhaseRow, TrainingProfile, TrainingRow
from layerbench.records.tree import holder

Timed = Profile | TrainingProfile
"""What has an untouched whole: a forward, or a training step."""

WAITS = 0.1
"""Of the untouched whole, what the device waits from where on launching decides."""

APART = 0.02
"""Of a time, how far two figures that should agree may lie apart without a word."""

# A row's device time below this part of its host time is well below it: wrappers and the spread of
# the two clocks' rounds are less than a fifth.
_WELL_BELOW = 0.8
# Without device rounds: the host's time of the whole over the device's from where on it decides.
_HOST_DECIDES = 0.95


def whole_of(record: Timed) -> Summary:
    """The untouched forward, or step."""
    return record.whole if isinstance(record, Profile) else record.step


def needed_s(record: Timed) -> float | None:
    """What the device needs for one forward or step, seconds; ``None`` where nobody knows.

    The whole behind a blocked queue; where the queue cannot be blocked, the time in which kernels
    ran.
    """
    return needed_of(record.device_rounds)


def needed_of(rounds: DeviceRounds | None) -> float | None:
    """The same of what the device did in its own rounds."""
    if rounds is None:
        return None
    if rounds.blocked is not None:
        return rounds.blocked.median
    if rounds.span is None or rounds.idle is None:
        return None
    return rounds.span.median - rounds.idle.median


def launching_s(record: Timed) -> float | None:
    """What launching costs: the untouched whole less what the device needs; never negative."""
    needed = needed_s(record)
    return None if needed is None else max(whole_of(record).median - needed, 0.0)


def waiting_part(record: Timed) -> float | None:
    """The part of the untouched whole in which the device waits for the host."""
    return waiting_of(record.device_rounds, whole_of(record).median)


def waiting_of(rounds: DeviceRounds | None, whole_s: float) -> float | None:
    """The same of an untouched whole, seconds, and what the device did in its own rounds."""
    needed = needed_of(rounds)
    return None if needed is None else part_of(max(whole_s - needed, 0.0), whole_s)


def is_launch_bound(record: Timed) -> bool:
    """Whether an accelerator waits for the host for a good part of a forward or step."""
    waiting = waiting_part(record)
    if waiting is not None:
        return waiting > WAITS
    if isinstance(record, TrainingProfile):
        return False
    host, device = record.whole_host, record.whole
    return host is not None and host.median >= _HOST_DECIDES * device.median


def busy_s(record: Timed) -> float:
    """The mean time in which the device worked in one round: what kernels' shares refer to."""
    rounds = record.device_rounds
    if rounds is None or rounds.span is None or rounds.idle is None:
        return record.base.mean if isinstance(record, Profile) else record.step.mean
    return rounds.span.mean - rounds.idle.mean


@dataclass(frozen=True)
class Launching:
    """Which rows of a record are launch-bound.

    Where the device hardly waits at all, none is: what takes long to launch is then launched while
    the device still has other work.

    Attributes:
        waits: whether the device waits for the host at all.
        modules: the modules' rows by path.
    """

    waits: bool
    modules: Mapping[str, LayerRow]

    @classmethod
    def of(cls, record: Profile) -> Launching:
        """Of a record; without device rounds no row is launch-bound."""
        waiting = waiting_part(record)
        waits = is_launch_bound(record) if waiting is None else waiting > APART
        modules = {row.path: row for row in record.layers if row.kind == "module"}
        return cls(waits and record.device_rounds is not None, modules)

    def bounds(self, row: LayerRow) -> bool:
        """Whether the device has long done all that is in a row when the host has launched it."""
        row = self._timed(row)
        return self.waits and _is_well_below(row.inclusive, row.host_inclusive)

    def bounds_own(self, row: LayerRow) -> bool:
        """The same of what the row does itself, without the modules that it calls."""
        row = self._timed(row)
        return self.waits and _is_well_below(row.self_, row.host_self)

    def count(self, rows: Iterable[LayerRow]) -> tuple[int, int]:
        """How many of the rows are launch-bound, and how many have times on both clocks."""
        both = [row for row in rows if row.inclusive and row.host_inclusive]
        return sum(map(self.bounds, both)), len(both)

    def _timed(self, row: LayerRow) -> LayerRow:
        """The row; of a function without a time on the host's clock, its module's."""
        if row.kind == "module" or row.host_self is not None:
            return row
        module = self.modules.get(holder(row.path, self.modules))
        if module is None:
            return row
        # What the module launches itself: to it belong its functions.
        own = {"inclusive": module.self_, "host_inclusive": module.host_self}
        return module.model_copy(update=own)


@dataclass(frozen=True)
class StepLaunching:
    """Which rows and phases of a training step are launch-bound.

    Attributes:
        waits: whether the device waits for the host at all.
    """

    waits: bool

    @classmethod
    def of(cls, record: TrainingProfile) -> StepLaunching:
        """Of a record; without device rounds nothing is launch-bound."""
        waiting = waiting_part(record)
        return cls(waiting is not None and waiting > APART)

    def bounds(self, row: TrainingRow) -> bool:
        """Whether the device has long done a row's forward and backward when they are launched."""
        return self.waits and _is_below(row.times, row.host_times)

    def bounds_own(self, row: TrainingRow) -> bool:
        """The same of what the row does itself, without the modules that it calls."""
        return self.waits and _is_below(row.own_times, row.own_host_times)

    def bounds_phase(self, phase: PhaseRow) -> bool:
        """The same of a phase."""
        return self.waits and _is_well_below(phase.busy, phase.host)


def _is_below(device: Iterable[Summary | None], host: Iterable[Summary | None]) -> bool:
    """As `_is_well_below`, of sums."""
    works, launches = (fsum(t.median for t in times if t) for times in (device, host))
    return 0 < works < _WELL_BELOW * launches


def _is_well_below(device: Summary | None, host: Summary | None) -> bool:
    """Whether what is launched is done well before; a row that launches nothing is not."""
    return device is not None and host is not None and _is_below([device], [host])
