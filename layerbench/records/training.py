"""One training step taken apart: by phase, and forward and backward by module."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.environment import Environment
from layerbench.records.memory import Optimizer, Peak, Phase
from layerbench.records.timing import Shape, Summary
from layerbench.workload import Frozen, Plan, Workload

StepPhase = Literal["data", "copy", "forward", "loss", "backward", "optimizer"]
STEP_PHASES: tuple[StepPhase, ...] = ("data", "copy", "forward", "loss", "backward", "optimizer")


class PhaseRow(Frozen):
    """A phase of the step.

    Attributes:
        name: ``data`` is the wait for the batch, ``copy`` its way to the device, ``optimizer``
            holds ``step`` and ``zero_grad``.
        time: of the steps with nothing attached.
    """

    name: StepPhase
    time: Summary


class TrainingRow(Frozen):
    """One module.

    Attributes:
        path, type, depth, calls, block, position: as in `layerbench.records.LayerRow`.
        forward, backward: inclusive: with the modules below it.
        forward_self, backward_self: without them. The backward of a module is that of the nodes
            that its forward put into the graph, and of adding up its parameters' gradients.
        kept: bytes that it and the modules below it allocated in the forward and that were still
            alive at its end: saved for the backward, and the output.
        live: the most bytes of all tensors together while it, or a module below it, ran, by phase.
    """

    path: str
    type: str
    depth: int = Field(ge=0)
    calls: int = Field(ge=0)
    block: bool = False
    position: int | None = None
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: int | None = None
    forward: Summary | None = None
    forward_self: Summary | None = None
    backward: Summary | None = None
    backward_self: Summary | None = None
    kept: int | None = None
    live: dict[Phase, int] = Field(default_factory=dict)
    note: str = ""


class TrainingMemory(Frozen):
    """Bytes of tensors in a step, from the second one on: the optimizer has its state.

    Attributes:
        resident: parameters, buffers and input: there all the time.
        peak: the moment with the most bytes alive.
        live: the most bytes alive in each phase.
    """

    resident: int
    peak: Peak
    live: dict[Phase, int]


class TrainingProfile(Frozen):
    """One training step, measured many times over.

    Attributes:
        optimizer: that made the steps.
        step: the whole step with nothing attached; ``phases``: its parts.
        rows: modules in tree order, from instrumented steps in alternation with the others.
        instrumented_s: median of the instrumented step, less what is attached between forward and
            backward.
        overhead: median over rounds of instrumented / untouched, with its 95 % interval.
        outside_s: median of the backward's time that belongs to no module: the loss, the engine.
        forward_sum_ratio, backward_sum_ratio: the modules' own times, and ``outside``, over the
            phases of the same steps, summed over all rounds: 1 by construction.
        memory: of a step; ``None`` where it could not be worked out, which a note says.
        notes: what the reader should know.
    """

    record: Literal["training profile"] = "training profile"
    schema_version: Literal[1] = 1
    workload: Workload
    plan: Plan
    environment: Environment
    optimizer: Optimizer
    model_type: str
    parameters: int
    step: Summary
    phases: tuple[PhaseRow, ...]
    rows: tuple[TrainingRow, ...]
    instrumented_s: float
    overhead: float
    overhead_low: float
    overhead_high: float
    outside_s: float
    forward_sum_ratio: float
    backward_sum_ratio: float
    memory: TrainingMemory | None = None
    notes: tuple[str, ...] = ()
