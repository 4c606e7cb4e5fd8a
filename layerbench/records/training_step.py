"""One training step taken apart: by phase, and forward and backward by module."""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import Field, model_validator

from layerbench.records.bounds import (
    Count,
    Figure,
    Name,
    Shape,
    SignedTime,
    Text,
    Time,
    check_ordered,
    is_none,
)
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.memory import Peak, Phase
from layerbench.records.rows import ModuleRow, Phases, Tree
from layerbench.records.timing import DeviceRounds, KernelRow, Summary
from layerbench.records.workload import Frozen, Plan, Workload

StepPhase = Literal["data", "copy", "forward", "loss", "backward", "optimizer"]
STEP_PHASES: tuple[StepPhase, ...] = ("data", "copy", "forward", "loss", "backward", "optimizer")


Times = tuple[Summary | None, Summary | None, Summary | None]


class PhaseRow(Frozen):
    """A phase of the step.

    Attributes:
        name: ``data`` is the wait for the batch, ``copy`` its way to the device, ``optimizer``
            holds ``step`` and ``zero_grad``.
        time: of the steps with nothing attached; on an accelerator by events in its queue.
        host: the same on the host's clock, where the device has its own.
        busy: in which an accelerator worked, in steps of their own: by the kernels that the
            profiler saw, or between events while the queue was blocked. ``None`` where neither
            could be. ``kernels``: how many these were; ``None`` where nobody saw them.
        micro_batches: the time of each micro-batch, where a step has several: these add up to
            ``time``. None of the optimizer, which comes once.
    """

    name: StepPhase
    time: Summary
    host: Summary | None = Field(default=None, exclude_if=is_none)
    busy: Summary | None = Field(default=None, exclude_if=is_none)
    kernels: Count | None = Field(default=None, exclude_if=is_none)
    micro_batches: tuple[Summary, ...] = Field(default=(), exclude_if=operator.not_)


class TrainingRow(ModuleRow):
    """One module.

    Attributes:
        forward, backward: inclusive: with the modules below it.
        forward_self, backward_self: without them. The backward of a module is that of the nodes
            that its forward put into the graph, and of adding up its parameters' gradients. With
            several micro-batches, times are of all of them.
        recomputation, recomputation_self: the same of its forward running again within the
            backward, which is no part of ``backward``; ``None`` where none does.
        host_forward, host_forward_self, host_backward, host_backward_self, host_recomputation,
            host_recomputation_self: what the host took to launch it, where the others are times of
            an accelerator.
        kernels: that the device ran in forward and backward for it and the modules below it;
            ``None`` where nobody saw them.
        kept: bytes that it and the modules below it allocated in the forward and that were still
            alive at its end: saved for the backward, and the output.
        live: the most bytes of all tensors together while it, or a module below it, ran, by phase.
    """

    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: Count | None = None
    forward: Summary | None = None
    forward_self: Summary | None = None
    backward: Summary | None = None
    backward_self: Summary | None = None
    recomputation: Summary | None = Field(default=None, exclude_if=is_none)
    recomputation_self: Summary | None = Field(default=None, exclude_if=is_none)
    host_forward: Summary | None = Field(default=None, exclude_if=is_none)
    host_forward_self: Summary | None = Field(default=None, exclude_if=is_none)
    host_backward: Summary | None = Field(default=None, exclude_if=is_none)
    host_backward_self: Summary | None = Field(default=None, exclude_if=is_none)
    host_recomputation: Summary | None = Field(default=None, exclude_if=is_none)
    host_recomputation_self: Summary | None = Field(default=None, exclude_if=is_none)
    kernels: Count | None = Field(default=None, exclude_if=is_none)
    kept: Count | None = None
    live: dict[Phase, Count] = Field(default_factory=dict)
    note: Text = ""

    @property
    def times(self) -> Times:
        """Forward, backward and recomputation, with the modules below it."""
        return self.forward, self.backward, self.recomputation

    @property
    def own_times(self) -> Times:
        """The same without the modules below it."""
        return self.forward_self, self.backward_self, self.recomputation_self

    @property
    def host_times(self) -> Times:
        """As `times`, what the host took."""
        return self.host_forward, self.host_backward, self.host_recomputation

    @property
    def own_host_times(self) -> Times:
        """As `own_times`, what the host took."""
        return self.host_forward_self, self.host_backward_self, self.host_recomputation_self


class StepKernelRow(KernelRow):
    """Kernels of one name that an accelerator ran in a phase of the step; see `KernelRow`.

    Attributes:
        phase: of the step.
        module: in forward and backward; elsewhere, and where no module did it, the model itself.
        function: in the backward the node of autograd's graph that launched them, elsewhere the
            outermost operator.
        recomputed: whether a forward that ran again within the backward launched them.
    """

    phase: StepPhase
    recomputed: bool = Field(default=False, exclude_if=operator.not_)


class TrainingMemory(Frozen):
    """Bytes of tensors in a step, from the second one on: the optimizer has its state.

    Attributes:
        resident: parameters, buffers and input: there all the time.
        peak: the moment with the most bytes alive.
        live: the most bytes alive in each phase.
    """

    resident: Count
    peak: Peak
    live: dict[Phase, Count]


class TrainingProfile(Record):
    """One training step, measured many times over.

    Attributes:
        optimizer: that made the steps: one of `layerbench.records.memory.Optimizer`; in a user's
            own loop perhaps another class.
        step: the whole step with nothing attached; ``phases``: its parts.
        rows: modules in tree order, from instrumented steps in alternation with the others.
        instrumented_s: median of the instrumented step, less what is attached between forward and
            backward.
        overhead: median over rounds of instrumented / untouched, with its 95 % interval.
        outside_s: median of the backward's time that belongs to no module: the loss, the engine.
        recomputation: of the backward phase, what forwards that ran again took in the steps that
            the rows are from; ``None`` where none did.
        forward_sum_ratio, backward_sum_ratio: the modules' own times, recomputation and ``outside``
            over the phases of the same steps, summed over all rounds: 1 by construction.
        device_rounds: of an accelerator: the modules' times and ``outside_s`` are then those of
            kernels, in profiled steps, or between events; the overhead and ``instrumented_s`` are
            on the host's clock.
        kernels: of an accelerator, where the profiler sees them; the longest first.
        memory: of a step; ``None`` where it could not be worked out, which a note says.
        absent: what was not measured, and why.
        notes: what the reader should know.
    """

    record: Literal["training profile"] = "training profile"
    workload: Workload
    plan: Plan
    environment: Environment
    optimizer: Name
    model_type: Name
    parameters: Count
    step: Summary
    phases: Phases[PhaseRow]
    rows: Tree[TrainingRow]
    instrumented_s: Time
    overhead: Figure
    overhead_low: Figure
    overhead_high: Figure
    outside_s: SignedTime
    recomputation: Summary | None = Field(default=None, exclude_if=is_none)
    forward_sum_ratio: Figure
    backward_sum_ratio: Figure
    device_rounds: DeviceRounds | None = Field(default=None, exclude_if=is_none)
    kernels: tuple[StepKernelRow, ...] = Field(default=(), exclude_if=operator.not_)
    memory: TrainingMemory | None = None
    absent: dict[Name, Text] = Field(default_factory=dict, exclude_if=operator.not_)
    notes: tuple[Text, ...] = ()

    @property
    def images(self) -> int:
        """Images of a step: of all its micro-batches."""
        return self.workload.batch * self.workload.gradient_accumulation

    @model_validator(mode="after")
    def _consistent(self) -> TrainingProfile:
        check_ordered("the overhead", self.overhead_low, self.overhead_high)
        return self
