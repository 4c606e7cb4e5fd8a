"""From the steps of a training profile to its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis import disturbance
from layerbench.analysis.aggregation import believed, summaries_of, summary_of
from layerbench.analysis.statistics import Resampler, paired_ratio
from layerbench.instruments.rows import notes_on_calls
from layerbench.instruments.step_events import StepEventTimer
from layerbench.instruments.step_kernels import (
    BACKWARD,
    FORWARD,
    KernelStep,
    StepKernelKey,
    stacked,
)
from layerbench.instruments.step_places import ROOT
from layerbench.instruments.step_timer import TimedStep
from layerbench.instruments.waiting import wait_arrays
from layerbench.profilers.event_samples import notes_on_short_pieces_of_steps
from layerbench.records.environment import Environment
from layerbench.records.samples import BLOCKED_QUEUE, UNTOUCHED, RowFacts, waits_of
from layerbench.records.timing import DeviceRounds, Summary
from layerbench.records.training_step import (
    STEP_PHASES,
    PhaseRow,
    StepKernelRow,
    TrainingProfile,
    TrainingRow,
)
from layerbench.records.tree import Placed, placed
from layerbench.records.workload import Plan, Workload
from layerbench.units import NANOSECOND

Times = NDArray[np.int64]


@dataclass
class Steps:
    """What was measured, a step of each kind in a round, and a blocked one in some.

    Attributes:
        untouched: with nothing attached; ``waits``: nanoseconds for which each waited for a core.
        instrumented: with the modules timed.
        profiled: whose kernels were seen, or with events in their place; none on a CPU.
        blocked: nanoseconds of the step behind a blocked queue.
        why_not_blocked: why there are none; empty where there are, and on a CPU.
        why_no_kernels: why nobody sees them; empty where somebody does, and on a CPU.
    """

    untouched: list[TimedStep] = field(default_factory=list)
    instrumented: list[TimedStep] = field(default_factory=list)
    profiled: list[KernelStep] = field(default_factory=list)
    blocked: list[int] = field(default_factory=list)
    waits: list[int | None] = field(default_factory=list)
    why_not_blocked: str = ""
    why_no_kernels: str = ""


@dataclass(frozen=True)
class _ModuleTimes:
    """Nanoseconds of the instrumented or profiled steps, each of shape (rounds, modules).

    Attributes:
        outside: shape (rounds,): of the backward, what belongs to no module.
        whole_forward, whole_backward: shape (rounds,): of the same steps.
    """

    forward: Times
    forward_self: Times
    backward: Times
    backward_self: Times
    recomputation: Times
    recomputation_self: Times
    outside: Times
    whole_forward: Times
    whole_backward: Times


def record_of(
    workload: Workload,
    plan: Plan,
    optimizer: str,
    rows: Sequence[RowFacts],
    steps: Steps,
    environment: Environment,
    notes: Sequence[str],
    events: StepEventTimer | None = None,
) -> TrainingProfile:
    """The record of measured steps.

    Args:
        workload: what trained.
        plan: with as many rounds as there are steps of a kind.
        optimizer: that made the steps.
        rows: of the modules, the model's own first.
        steps: at least one of each kind, but for profiled ones.
        environment: of the measurement.
        notes: what the reader should know beforehand.
        events: took the times of the profiled steps; ``None`` where their kernels were seen.
    """
    resampler = Resampler([plan.iterations], seed=workload.seed)
    bare, attached = (_phases(kind) for kind in (steps.untouched, steps.instrumented))
    host, profiled = _host_phases(steps.untouched), steps.profiled
    kernels = profiled if events is None else []
    launched = _module_times(steps.instrumented)
    times = _device_times(profiled) if profiled else launched
    # On one clock: the instrumented steps are on the host's.
    compared = bare if host is None else host
    overhead, low, high = paired_ratio(
        attached.sum(axis=1).astype(np.float64), compared.sum(axis=1).astype(np.float64), resampler
    )
    again = times.recomputation_self.sum(axis=1)
    backward = int(times.backward_self.sum()) + int(again.sum()) + int(times.outside.sum())
    whole = bare.sum(axis=1)
    waits = waits_of([{UNTOUCHED: whole, **wait_arrays({UNTOUCHED: steps.waits})}])
    step, on_device = summary_of(whole, resampler), _device_rounds(steps, workload.seed, events)
    holding = disturbance.holding(on_device, step.median)
    return TrainingProfile(
        workload=workload,
        plan=plan,
        environment=environment.with_waits(waits, holding),
        optimizer=optimizer,
        model_type=rows[0].type,
        parameters=rows[0].parameters,
        step=believed(step, waits, holding),
        recomputation=summary_of(again, resampler) if again.any() else None,
        phases=_phase_rows(
            steps.untouched,
            bare,
            host,
            _busy(profiled, events),
            _counts(kernels, "phase_counts"),
            resampler,
        ),
        rows=_rows(
            rows, times, launched if profiled else None, _counts(kernels, "counts"), resampler
        ),
        instrumented_s=_seconds(attached.sum(axis=1)),
        overhead=overhead,
        overhead_low=low,
        overhead_high=high,
        outside_s=_seconds(times.outside),
        forward_sum_ratio=_part(int(times.forward_self.sum()), int(times.whole_forward.sum())),
        backward_sum_ratio=_part(backward, int(times.whole_backward.sum())),
        device_rounds=on_device,
        absent=_absent(steps),
        kernels=_kernels(kernels, [row.path for row in rows], resampler),
        notes=(
            *notes,
            *notes_on_calls(rows, _calls(steps.instrumented)),
            *(_notes_on_events(events, profiled, rows) if events is not None else ()),
        ),
    )


def _calls(steps: Sequence[TimedStep]) -> Times:
    """Shape (rounds, modules)."""
    return np.stack([step.forward.calls for step in steps if step.forward is not None])


def _phases(steps: Sequence[TimedStep]) -> Times:
    """Shape (rounds, phases)."""
    return np.array([step.phases_ns for step in steps], dtype=np.int64)


def _host_phases(steps: Sequence[TimedStep]) -> Times | None:
    """Shape (rounds, phases); ``None`` where the host's clock is the only one."""
    phases = [step.host_phases_ns for step in steps if step.host_phases_ns is not None]
    return np.array(phases, dtype=np.int64) if phases else None


def _absent(steps: Steps) -> dict[str, str]:
    """What was not measured, and why."""
    absent = {BLOCKED_QUEUE: steps.why_not_blocked, "kernels": steps.why_no_kernels}
    return {what: why for what, why in absent.items() if why}


def _notes_on_events(
    events: StepEventTimer, steps: Sequence[KernelStep], rows: Sequence[RowFacts]
) -> tuple[str, ...]:
    short = notes_on_short_pieces_of_steps(events, steps, [row.path for row in rows])
    return (*events.notes(), *short)


def _busy(steps: Sequence[KernelStep], events: StepEventTimer | None) -> Times | None:
    """Shape (rounds, phases); ``None`` where the times hold launching."""
    alone = events is None or events.is_blocking
    return stacked(steps, "phases_ns") if steps and alone else None


def _phase_rows(
    untouched: Sequence[TimedStep],
    bare: Times,
    host: Times | None,
    busy: Times | None,
    counts: Sequence[int],
    resampler: Resampler,
) -> tuple[PhaseRow, ...]:

    def summary(times: Times | None, index: int) -> Summary | None:
        return None if times is None else summary_of(times[:, index], resampler)

    # Shape (rounds, micro-batches, phases).
    parts = np.array([step.micro_batches_ns for step in untouched], dtype=np.int64)

    def of_micro_batches(index: int) -> tuple[Summary, ...]:
        if parts.shape[1] == 1 or index == parts.shape[2]:
            return ()
        return tuple(summary_of(column, resampler) for column in parts[:, :, index].T)

    return tuple(
        PhaseRow(
            name=name,
            time=summary_of(bare[:, index], resampler),
            micro_batches=of_micro_batches(index),
            host=summary(host, index),
            busy=summary(busy, index),
            kernels=counts[index] if counts else None,
        )
        for index, name in enumerate(STEP_PHASES)
    )


def _device_rounds(steps: Steps, seed: int, events: StepEventTimer | None) -> DeviceRounds | None:
    profiled, blocked = steps.profiled, np.array(steps.blocked, dtype=np.int64)
    if not profiled:
        return None
    resampler = Resampler([len(profiled)], seed=seed)
    of_blocked = Resampler([len(blocked)], seed=seed) if len(blocked) else None
    idle = summary_of(stacked(profiled, "idle_ns"), resampler) if events is None else None
    shortest = events.resolution_ns * NANOSECOND if events is not None else 0
    return DeviceRounds(
        how="kernels" if events is None else "events",
        span=summary_of(stacked(profiled, "span_ns"), resampler),
        idle=idle,
        blocked=None if of_blocked is None else summary_of(blocked, of_blocked),
        resolution_s=shortest or None,
    )


def _counts(kernels: Sequence[KernelStep], name: str) -> Sequence[int]:
    """The most common number of each column; nothing where nobody saw kernels."""
    return [int(np.bincount(column).argmax()) for column in stacked(kernels, name).T]


def _kernels(
    steps: Sequence[KernelStep], paths: Sequence[str], resampler: Resampler
) -> tuple[StepKernelRow, ...]:
    """The longest first."""
    keys = list(dict.fromkeys(key for step in steps for key in step.kernels))
    rows = [_kernel(key, steps, paths, resampler) for key in keys]
    return tuple(sorted(rows, key=lambda row: -row.time.median))


def _kernel(
    key: StepKernelKey, steps: Sequence[KernelStep], paths: Sequence[str], resampler: Resampler
) -> StepKernelRow:
    each = [step.kernels.get(key, (0, 0)) for step in steps]
    runs = Counter(runs for runs, _ in each if runs)
    return StepKernelRow(
        phase=STEP_PHASES[key.phase],
        module=paths[max(key.module, ROOT)],
        recomputed=key.recomputed,
        function=key.function,
        name=key.kernel,
        calls=runs.most_common(1)[0][0],
        time=summary_of(np.array([time for _, time in each], dtype=np.int64), resampler),
    )


def _part(part: int, whole: int) -> float:
    """Of what should be its whole; 1 where neither took any time."""
    return part / whole if whole else 1.0


def _module_times(steps: Sequence[TimedStep]) -> _ModuleTimes:
    forwards = [step.forward for step in steps if step.forward is not None]

    def stacked_of(name: str) -> Times:
        times = [getattr(step, name) for step in steps]
        return np.stack([time for time in times if time is not None])

    return _ModuleTimes(
        forward=np.stack([forward.inclusive_ns for forward in forwards]),
        forward_self=np.stack([forward.self_ns for forward in forwards]),
        backward=stacked_of("backward_inclusive_ns"),
        backward_self=stacked_of("backward_ns"),
        recomputation=stacked_of("again_inclusive_ns"),
        recomputation_self=stacked_of("again_ns"),
        outside=np.array([step.outside_ns for step in steps], dtype=np.int64),
        whole_forward=_phases(steps)[:, FORWARD],
        whole_backward=_phases(steps)[:, BACKWARD],
    )


def _device_times(steps: Sequence[KernelStep]) -> _ModuleTimes:
    phases = stacked(steps, "phases_ns")
    return _ModuleTimes(
        forward=stacked(steps, "forward_inclusive_ns"),
        forward_self=stacked(steps, "forward_ns"),
        backward=stacked(steps, "backward_inclusive_ns"),
        backward_self=stacked(steps, "backward_ns"),
        recomputation=stacked(steps, "again_inclusive_ns"),
        recomputation_self=stacked(steps, "again_ns"),
        outside=stacked(steps, "outside_ns"),
        whole_forward=phases[:, FORWARD],
        whole_backward=phases[:, BACKWARD],
    )


_TIMES = ("forward", "forward_self", "backward", "backward_self")
_AGAIN = ("recomputation", "recomputation_self")


def _rows(
    facts: Sequence[RowFacts],
    times: _ModuleTimes,
    launched: _ModuleTimes | None,
    kernels: Sequence[int],
    resampler: Resampler,
) -> tuple[TrainingRow, ...]:
    ran = [index for index, row in enumerate(facts) if row.calls]
    columns: dict[str, Mapping[int, Summary]] = {}
    for source, prefix in ((times, ""), (launched, "host_")):
        if source is None:
            continue
        again = [index for index in ran if source.recomputation[:, index].any()]
        for names, of in ((_TIMES, ran), (_AGAIN, again)):
            for name in names:
                columns[prefix + name] = summaries_of(getattr(source, name), of, resampler)
    return tuple(
        _row(
            facts[place.row],
            place,
            {n: summaries.get(place.row) for n, summaries in columns.items()},
            kernels[place.row] if kernels else None,
        )
        for place in placed(facts)
    )


def _row(
    facts: RowFacts, place: Placed, times: Mapping[str, Summary | None], kernels: int | None
) -> TrainingRow:
    return TrainingRow(
        path=facts.path,
        type=facts.type,
        depth=facts.depth,
        calls=facts.calls,
        block=facts.block,
        position=place.position,
        turn=place.turn,
        input_shapes=facts.input_shapes,
        output_shapes=facts.output_shapes,
        parameters=facts.parameters,
        kernels=kernels,
        note=facts.note,
        **times,
    )


def _seconds(nanoseconds: Times) -> float:
    return round(float(np.median(nanoseconds)) * NANOSECOND, 10)
