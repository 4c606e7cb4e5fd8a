"""The frozen result types. SI units inside: seconds and bytes. No torch.

A value that was not measured is ``None``, and `Profile.absent` says why; it is never 0.
"""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from layerbench.records.bounds import (
    LEAST_SECONDS,
    Amount,
    Count,
    Figure,
    Name,
    Path,
    Positive,
    Ratio,
    Shape,
    SignedTime,
    Text,
    Time,
    check_ordered,
    is_none,
)
from layerbench.records.compilation import Compilation, KernelPart, Portion
from layerbench.records.conditions import DeviceConditions
from layerbench.records.energy import Energy
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.rows import Tree
from layerbench.records.workload import DType, Frozen, Plan, Workload

Verdict = Literal["stable", "noisy", "drifting"]
Kind = Literal["module", "function"]
StopReason = Literal["iterations", "until", "cap", "interrupted"]

ONLY_INSIDE = "only what is in it ran"
"""The note of a row with 0 calls whose module holds others that were called."""

VARIED = "varied between forwards"
CALLS_VARIED = f"calls {VARIED}"
"""Notes with these words name modules that not every forward ran alike."""

# A mean of equal samples, rounded to a tenth of a nanosecond, may come out next to them.
_ROUNDING = 1e-9


class Summary(Frozen):
    """The distribution of ``n`` samples, in seconds.

    ``ci_low`` and ``ci_high`` bound the 95 % interval of the median; how it is made
    is said in `analysis.statistics.summarize`. ``missed`` names each criterion that a row
    which is not ``stable`` failed, with the figure and the limit. ``process_medians`` are those
    of each fresh process where there are several: what a comparison needs to know.
    """

    n: Positive
    mean: SignedTime
    std: Time
    median: SignedTime
    mad: Time
    min: SignedTime
    max: SignedTime
    p5: SignedTime
    p25: SignedTime
    p75: SignedTime
    p95: SignedTime
    p99: SignedTime
    ci_low: SignedTime
    ci_high: SignedTime
    verdict: Verdict
    missed: tuple[Text, ...] = ()
    process_medians: tuple[SignedTime, ...] = Field(default=(), exclude_if=operator.not_)

    @model_validator(mode="after")
    def _in_order(self) -> Summary:
        """Refuse figures that no distribution can have, such as those of an edited file."""
        low, middle, high = self.p5, self.median, self.p95
        if not (self.min <= low <= self.p25 <= middle <= self.p75 <= high <= self.p99 <= self.max):
            raise ValueError("min, p5, p25, median, p75, p95, p99 and max are not in this order")
        if not self.min - _ROUNDING <= self.mean <= self.max + _ROUNDING:
            raise ValueError("the mean lies outside the samples")
        if not self.ci_low <= self.median <= self.ci_high:
            raise ValueError("the median lies outside its own interval")
        for time in (self.min, self.p5, self.median, self.mean, self.ci_low, *self.process_medians):
            if 0 < time < LEAST_SECONDS:
                raise ValueError("a time is shorter than a picosecond and not 0")
        return self


UNTOUCHED = "untouched forward"
"""In `Profile.absent`: the whole is that of instrumented forwards."""

ONCE = "the only forward was also looked at, which takes far longer: run several"
"""In `Profile.notes`: the figures are mostly those of the looking for shapes, functions, FLOPs."""
CHANGED = "inputs of other shapes followed: shapes and FLOPs are those of the first forward"
"""In `Profile.notes`: rates set the FLOPs of one shape against times of several."""

NOTHING_COMPILED = "nothing was compiled: Python ran the model as it is"
"""In `Profile.notes`: the figures are those of the model without ``--compile``."""
OWN_COMPILED = "--compile had no effect: the model was compiled before"
"""In `Profile.notes`: the workload's mode of `torch.compile` is not the one that ran."""
GIVEN_UP = "no compiled kernel ran in the last round: Dynamo gave up"
"""In `Profile.notes`: the figures are those of Python, of compiling, or of both."""
COMPILED_LATE = "measured rounds have times of compilation in them"
"""In `Profile.notes`: the figures are partly those of compiling."""
NOT_AS_COMPILED = (NOTHING_COMPILED, OWN_COMPILED, GIVEN_UP, COMPILED_LATE)
WEAKENING = (ONCE, CHANGED, *NOT_AS_COMPILED)
"""What a report begins with, of `Profile.notes`."""


class LayerRow(Frozen):
    """One module, or one function that a composite module runs itself.

    Attributes:
        path: the module's qualified name, ``""`` for the model itself; a function's is its
            module's path and its own name: ``features.2.add()``.
        type: the module's class name, or the function's name.
        kind: ``module`` or ``function``.
        depth: 0 for the model itself; a function is one deeper than its module.
        calls: calls in one forward; 0 for a module that did not run (then the times are ``None``).
        block: whether the row stands in the block view (docs/blocks.md).
        position: for a block, its number among the blocks of its type, in order of execution.
        turn: for a block, its number among all blocks in order of execution, where that is not the
            order of the rows: what runs can go back and forth between branches of the tree.
        input_shapes, output_shapes: of the tensors in the first call, in order of appearance.
        parameters: elements of the parameters in this module and below; ``None`` for functions.
        own_parameters, own_parameter_bytes, flops, self_flops, kernel_size, groups: as in
            `layerbench.records.structure.StructureRow`; ``None`` where FLOPs were not counted.
        inclusive: time per forward between entry and exit, all calls added up.
        self_: inclusive less the inclusive time of the modules called meanwhile (JSON: ``self``).
        host_inclusive, host_self: the same on the host's clock, where the device has its own.
        scaled: for a function, the factor put on its times so that the functions of a module fit
            into the module's self time; ``None`` for modules.
        isolated_hot, isolated_cold: of a leaf alone on the inputs that it had, all calls of one
            forward added up; see `Isolation`.
        kernels: kernels that the device ran in one forward, for this row and what it called;
            ``None`` where nobody saw them.
        shared: of compiled code, the part of the inclusive time that is a share in kernels with
            other layers in them; ``None`` elsewhere, and where it is 0. ``self_shared`` the same
            of the self time.
        note: what a reader should know about this row, such as other names it goes by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    path: Path
    type: Name
    kind: Kind
    depth: Count
    calls: Count
    block: bool = False
    position: Count | None = None
    turn: Positive | None = Field(default=None, exclude_if=operator.not_)
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: Count | None = None
    own_parameters: Count | None = Field(default=None, exclude_if=is_none)
    own_parameter_bytes: Count | None = Field(default=None, exclude_if=is_none)
    flops: Count | None = Field(default=None, exclude_if=is_none)
    self_flops: Count | None = Field(default=None, exclude_if=is_none)
    kernel_size: Shape | None = Field(default=None, exclude_if=is_none)
    groups: Positive | None = Field(default=None, exclude_if=is_none)
    inclusive: Summary | None = None
    self_: Summary | None = Field(default=None, alias="self")
    host_inclusive: Summary | None = None
    host_self: Summary | None = None
    scaled: Amount | None = None
    isolated_hot: Summary | None = Field(default=None, exclude_if=is_none)
    isolated_cold: Summary | None = Field(default=None, exclude_if=is_none)
    kernels: Count | None = Field(default=None, exclude_if=is_none)
    shared: Portion | None = Field(default=None, exclude_if=is_none)
    self_shared: Portion | None = Field(default=None, exclude_if=is_none)
    note: Text = ""


class KernelRow(Frozen):
    """Kernels of one name that an accelerator ran for one module, or one of its functions.

    Of compiled code, one call of a kernel, on a CPU, too.

    Attributes:
        module: path of the innermost module that was running; of compiled code, of the layer that
            has most of the kernel.
        function: the operator within it that launched them; ``""`` where there was none.
        name: the kernel's, as the device's compiler made it; copies and fills have names, too.
        calls: in one forward.
        time: of all calls in one forward; while several kernels ran at once, the time is the one's
            that began first.
        layers: of compiled code, the layers in the kernel, the largest share first; empty
            elsewhere, and where they are not known.
        position: of compiled code, the place in the order of the code; ``None`` elsewhere, and in
            records of before it was kept.
    """

    module: Path
    function: Text = ""
    name: Text
    calls: Count
    time: Summary
    layers: tuple[KernelPart, ...] = Field(default=(), exclude_if=operator.not_)
    position: Count | None = Field(default=None, exclude_if=is_none)


DeviceTimes = Literal["kernels", "events"]


class DeviceRounds(Frozen):
    """What an accelerator did in rounds of their own, where it is told from launching.

    Attributes:
        how: where rows have their times on the device from: ``kernels``, seen by the profiler, or
            ``events`` in its queue, at the borders of leaves, behind a queue that was blocked.
            ``None`` where only the whole was timed.
        span: of the profiled rounds, from the first kernel's start to the last one's end; with
            ``events`` from the first event to the last. ``None`` where only the whole was timed.
        idle: of the span, when no kernel ran; ``None`` with ``events``. The rows' self times and
            this add up to the span exactly.
        blocked: the untouched whole when all of its work waits in the queue already: what the
            device needs. The whole less this is what launching costs. ``None`` where the queue
            cannot be blocked.
        resolution_s: with ``events``, the shortest time that two of them tell from nothing.
    """

    how: DeviceTimes | None = None
    span: Summary | None = None
    idle: Summary | None = None
    blocked: Summary | None = None
    resolution_s: Time | None = None


class Reconciliation(Frozen):
    """How far the layers are from the untouched whole, and what the instruments cost.

    Attributes:
        untouched_s, instrumented_s: medians of the whole forward.
        overhead: median over rounds of instrumented / untouched, paired within the round.
        overhead_low, overhead_high: its 95 % interval.
        self_sum_ratio: the self times of all modules over the instrumented whole, summed over
            all rounds in integer nanoseconds: 1 by construction. With `DeviceRounds`, these times
            and the idle time over the span.
        layers_sum_s: median over rounds of the sum of all modules' self times.
        layers_gap: (layers_sum_s - untouched_s) / untouched_s. With `DeviceRounds.blocked`, its
            median takes the untouched whole's place: both are the device's alone.
        mark_cost_s: one reading of the clock, calibrated.
        event_s: of an accelerator's queue, what one more event in it takes; the untouched whole
            holds one. Calibrated behind a blocked queue; ``None`` where that cannot be.
        least_event_s: between two events with nothing between them.
        wrapper_cost_s: one timed call of a module that does nothing, less the untimed call, in a
            tight loop; negative where what takes the call's place saves more than timing adds.
        timed_calls: module calls timed in one forward.
    """

    untouched_s: Time
    instrumented_s: Time
    overhead: Figure
    overhead_low: Figure
    overhead_high: Figure
    self_sum_ratio: Figure
    layers_sum_s: Time
    layers_gap: Figure
    mark_cost_s: Time
    event_s: Time | None = Field(default=None, exclude_if=is_none)
    least_event_s: Time | None = Field(default=None, exclude_if=is_none)
    wrapper_cost_s: SignedTime
    timed_calls: Count

    @model_validator(mode="after")
    def _in_order(self) -> Reconciliation:
        check_ordered("the overhead", self.overhead_low, self.overhead_high)
        return self


class CudaGraph(Frozen):
    """Beside the replay of a forward that was captured as a CUDA graph.

    Attributes:
        eager: the same forward without the graph, untouched, in turn with replays.
        eager_host: the same on the host's clock.
    """

    eager: Summary
    eager_host: Summary


class Isolation(Frozen):
    """How the leaves were run alone, on the inputs that they had in one forward.

    On a CPU between two readings of the clock; on an accelerator as in `DeviceRounds`.

    Attributes:
        hot_calls: of each leaf, right after one another.
        cold_calls: of each leaf, with the caches swept before each.
        swept_bytes: of the buffer that was read before each of these; on an accelerator written.
        cache_bytes: of the last-level caches; ``None`` where that is not known.
        failed: leaves that could not be run alone, by path, and why.
    """

    hot_calls: Positive
    cold_calls: Positive
    swept_bytes: Count
    cache_bytes: Count | None = None
    failed: dict[Path, Text] = Field(default_factory=dict)


class Ceilings(Frozen):
    """What the device reached at best with nothing but arithmetic, or nothing but copying, to do.

    The two roofs of a roofline (`analysis.roofline`). Found by measuring, not read off a data
    sheet: each is the best of several repetitions.

    Attributes:
        flops_per_s: FLOPs a second in products of square matrices; a multiply-add is two.
        bytes_per_s: bytes read and written a second in a copy within the device's memory.
        dtype: of the matrices' and the buffer's elements.
        threads: PyTorch's intra-op threads; ``None`` on an accelerator, which they do not concern.
        how: how they were measured, in one sentence.
        conditions: of an accelerator meanwhile.
    """

    flops_per_s: Ratio
    bytes_per_s: Ratio
    dtype: DType
    threads: Positive | None = None
    how: Text
    conditions: DeviceConditions | None = Field(default=None, exclude_if=is_none)


class Profile(Record):
    """One profile: a model timed whole and by layer.

    Attributes:
        model_type: class name of the model; ``parameters`` its parameter elements.
        whole: the untouched forward, unless ``absent`` says otherwise; ``whole_host`` on the
            host's clock where the device has one.
        layers: rows in tree order, children in order of execution; empty in a whole-model record.
        process_medians: the whole's median in each fresh process; one without ``--processes``.
        stop: why measuring ended: the planned iterations, the interval asked for, or the cap.
        ceilings: the device's own, measured after the rounds; ``None`` where nobody asked.
        device_rounds: on an accelerator, what the device did apart from being launched; then the
            rows' ``inclusive`` and ``self`` are from these rounds, and ``host_inclusive`` and
            ``host_self`` from rounds without an event. ``None`` elsewhere, and in records from
            before there were such rounds, whose rows' device times hold the host's launching.
        kernels: on an accelerator, where the profiler sees them, and of compiled code; the longest
            first.
        isolation: how leaves were run alone; ``None`` where nobody asked.
        energy: of the untouched forward; ``None`` where nobody asked, or ``absent`` says why.
        compilation: how the model was compiled; ``None`` where it was not.
        cuda_graph: where the whole is a CUDA graph's replay, what is beside it; ``None`` elsewhere.
        absent: what was not measured, and why.
        notes: what the reader should know about this profile.
    """

    record: Literal["profile"] = "profile"
    workload: Workload
    plan: Plan
    environment: Environment
    model_type: Name
    parameters: Count
    whole: Summary
    whole_host: Summary | None = None
    process_medians: tuple[Time, ...] = ()
    stop: StopReason = "iterations"
    layers: Tree[LayerRow] = ()
    reconciliation: Reconciliation | None = None
    # Left out of the JSON where it is None, as in the records from before it could be measured.
    ceilings: Ceilings | None = Field(default=None, exclude_if=is_none)
    device_rounds: DeviceRounds | None = Field(default=None, exclude_if=is_none)
    kernels: tuple[KernelRow, ...] = Field(default=(), exclude_if=operator.not_)
    isolation: Isolation | None = Field(default=None, exclude_if=is_none)
    energy: Energy | None = Field(default=None, exclude_if=is_none)
    compilation: Compilation | None = Field(default=None, exclude_if=is_none)
    cuda_graph: CudaGraph | None = Field(default=None, exclude_if=is_none)
    absent: dict[Name, Text] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        for time in self.process_medians:
            if 0 < time < LEAST_SECONDS:
                raise ValueError("a process's median is shorter than a picosecond and not 0")
        return self

    @property
    def root(self) -> LayerRow | None:
        """The row of the model itself, if it was timed."""
        return next((row for row in self.layers if row.depth == 0 and row.inclusive), None)

    @property
    def base(self) -> Summary:
        """What shares refer to, by means: the instrumented whole, which the layers add up to.

        Means, since medians of parts do not add up to the median of the sum.
        """
        root = self.root
        return root.inclusive if root and root.inclusive else self.whole

    def without_layers(self) -> Profile:
        """The whole-model record of the same measurement; kernels go with their layers."""
        kernels = () if self.layers else self.kernels
        return self.model_copy(update={"layers": (), "kernels": kernels, "isolation": None})
