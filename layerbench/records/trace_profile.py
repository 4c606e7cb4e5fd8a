"""What a trace of torch.profiler says by module: a recording that layerbench did not make."""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from layerbench.records.bounds import Count, Name, Path, Positive, Text, Time, is_none
from layerbench.records.kinds import Record
from layerbench.records.rows import ModuleRow, Phases, Tree
from layerbench.records.timing import Summary
from layerbench.records.workload import Frozen

TracePhaseName = Literal["data", "forward", "backward", "optimizer", "zero_grad"]

# Parts of a time that are rounded one by one may exceed it by this, relatively.
_ROUNDING = 1e-6


class Coverage(Frozen):
    """How much of a time has a name, in seconds; each stretch counts once, by the best name.

    Attributes:
        whole: all of it: on the host the steps, on the device the kernels.
        modules: of modules, in forward or backward.
        ranges: of the user's ranges alone.
        operators: of operators in neither.
    """

    whole: Time
    modules: Time
    ranges: Time
    operators: Time

    @property
    def rest(self) -> float:
        """What has no name at all."""
        rest = self.whole - self.modules - self.ranges - self.operators
        return rest if rest > self.whole * _ROUNDING else 0.0

    @model_validator(mode="after")
    def _fitting(self) -> Coverage:
        if self.modules + self.ranges + self.operators > self.whole * (1 + _ROUNDING):
            raise ValueError("the parts of a coverage are more than the whole")
        return self


class TraceRow(ModuleRow):
    """One place in the nesting of modules and ranges.

    Its path is made of what held it when it ran, as a trace knows no attribute paths; a dot in a
    name is another character there.

    Attributes:
        name: as recorded: ``Conv2d_0``, or what the user called a range.
        kind: ``module``, or ``range`` for a range of ``record_function``.
        calls: in one step (the median).
        time: on the host between entry and exit, all calls of a step added up.
        time_self: without the modules and ranges in it, and without autograd's nodes.
        backward, backward_self: on the host, of autograd's nodes that its forward made, with and
            without those of the rows below it; ``None`` where there are none.
        kernel_time, kernel_time_self: of the kernels that it launched in forward and
            backward, added up.
        kernels: how many these were in all steps, with those of the rows below it.
    """

    name: Name
    kind: Literal["module", "range"]
    time: Summary | None = None
    time_self: Summary | None = None
    backward: Summary | None = Field(default=None, exclude_if=is_none)
    backward_self: Summary | None = Field(default=None, exclude_if=is_none)
    kernel_time: Summary | None = Field(default=None, exclude_if=is_none)
    kernel_time_self: Summary | None = Field(default=None, exclude_if=is_none)
    kernels: Count | None = Field(default=None, exclude_if=is_none)
    note: Text = ""

    @property
    def times(self) -> tuple[Summary | None, ...]:
        """What it takes with the rows below it: on the device, if that is known, or the host."""
        return (self.time, self.backward) if self.kernels is None else (self.kernel_time,)

    @property
    def own_times(self) -> tuple[Summary | None, ...]:
        """The same without the rows below it."""
        if self.kernels is None:
            return (self.time_self, self.backward_self)
        return (self.kernel_time_self,)


class TracePhase(Frozen):
    """A part of a step that the trace names.

    Attributes:
        name: ``forward`` are the outermost modules, ``backward`` autograd's nodes, the others
            ranges that PyTorch itself records.
        time: on the host, a step.
    """

    name: TracePhaseName
    time: Summary


class TraceOperator(Frozen):
    """Operators of one name.

    Attributes:
        calls: in all steps.
        self_s: seconds a step on the host, without operators and ranges in them (mean).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    calls: Count
    self_s: Time


class TraceKernel(Frozen):
    """Kernels of one name that one row launched.

    Attributes:
        module: path of the row; empty for what belongs to none.
        backward: whether autograd's nodes launched them.
        calls: in all steps.
        seconds: a step (mean).
    """

    name: Name
    module: Path
    backward: bool
    calls: Count
    seconds: Time


class TraceProfile(Record):
    """A trace of torch.profiler, by module.

    Attributes:
        file: its name.
        events: in it, of whatever kind.
        steps: profiler steps; 0 where it has none, and is one sample as a whole.
        step: how long one takes on the host, from the profiler's own mark.
        rows: modules and ranges in tree order, the step itself first.
        phases: that have names.
        host_coverage: how much of the steps has a name; ``device_coverage`` the same of the
            kernels.
        busy: of a step, in which at least one kernel ran; ``None`` without kernels.
        operators: the longest first; ``kernels`` likewise.
        devices: names of the accelerators.
        lacks: what the trace does not have, and how to record it.
        notes: what weakens its figures.
    """

    record: Literal["trace profile"] = "trace profile"
    layerbench: Name
    file: Name
    events: Positive
    steps: Count
    step: Summary
    rows: Tree[TraceRow]
    phases: Phases[TracePhase] = ()
    host_coverage: Coverage
    device_coverage: Coverage | None = Field(default=None, exclude_if=is_none)
    busy: Summary | None = Field(default=None, exclude_if=is_none)
    operators: tuple[TraceOperator, ...] = ()
    kernels: tuple[TraceKernel, ...] = Field(default=(), exclude_if=operator.not_)
    devices: tuple[Name, ...] = ()
    lacks: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _has_the_step(self) -> TraceProfile:
        if not self.rows:
            raise ValueError("a trace profile has at least the row of the step")
        return self
