"""From samples to records: the runs of all processes in, one frozen `Profile` out. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis import disturbance
from layerbench.analysis.energy import energy_together
from layerbench.analysis.statistics import Resampler, paired_ratio, summarize, summarize_rows
from layerbench.records import contention, samples
from layerbench.records.conditions import DeviceConditions, WarmUp
from layerbench.records.contention import Holding, Waits
from layerbench.records.environment import Environment
from layerbench.records.samples import Arrays, RowFacts, Run, RunFacts, Samples
from layerbench.records.timing import (
    CudaGraph,
    DeviceRounds,
    KernelRow,
    LayerRow,
    Profile,
    Reconciliation,
    StopReason,
    Summary,
)
from layerbench.records.tree import Placed, placed
from layerbench.records.workload import Plan, Workload
from layerbench.units import NANOSECOND


def assemble(workload: Workload, plan: Plan, runs: Sequence[Run]) -> Profile:
    """Make the record of one workload from the runs of its processes.

    Args:
        workload, plan: go into the record as they are.
        runs: one for each process; their modules must be the same.
    """
    facts = runs[0].facts
    arrays = [run.arrays for run in runs]
    resampler = _resampler(arrays, samples.UNTOUCHED, workload.seed)
    host = _pooled(arrays, samples.HOST + samples.UNTOUCHED)
    medians = [float(np.median(run[samples.UNTOUCHED])) for run in arrays]
    stop = _stop(runs)
    partial = _partial(plan, runs) if stop == "interrupted" else ""
    waits = samples.waits_of(arrays)
    untouched = summary_of(_pooled(arrays, samples.UNTOUCHED), resampler)
    on_device = device_rounds(facts, arrays, workload.seed)
    holding = disturbance.holding(on_device, untouched.median)
    whole = believed(untouched, waits, holding)
    return Profile(
        workload=workload,
        plan=plan,
        environment=_environment(runs, partial, holding),
        model_type=facts.model_type,
        parameters=facts.parameters,
        whole=_not_stable(whole, "interrupted") if partial else whole,
        whole_host=None if host is None else believed(summary_of(host, resampler), waits),
        process_medians=tuple(_seconds(median) for median in medians),
        stop=stop,
        layers=with_isolated(
            layer_rows(facts.modules, _functions_of(runs), arrays, workload.seed),
            runs,
            workload.seed,
        ),
        reconciliation=_reconciliation(runs, arrays, resampler),
        device_rounds=on_device,
        kernels=kernel_rows(runs, workload.seed),
        isolation=facts.isolation,
        energy=energy_together([run.facts.energy for run in runs]),
        compilation=facts.compilation,
        cuda_graph=_cuda_graph(arrays, workload.seed),
        absent=_absent(runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.facts.notes)),
    )


def _cuda_graph(arrays: Sequence[Arrays], seed: int) -> CudaGraph | None:
    """What is beside the replay of a CUDA graph; ``None`` where there is none."""
    eager, host = (_pooled(arrays, name) for name in (samples.EAGER, samples.HOST + samples.EAGER))
    if eager is None or host is None:
        return None
    resampler = _resampler(arrays, samples.EAGER, seed)
    return CudaGraph(eager=summary_of(eager, resampler), eager_host=summary_of(host, resampler))


def believed(summary: Summary, waits: Waits | None, holding: Holding = "every") -> Summary:
    """The whole's summary, which is not stable where most rounds waited for a core.

    Args:
        summary: of the whole; on the host's clock as long as ``holding`` is left out.
        waits: of its rounds.
        holding: which times hold the waits.
    """
    missed = contention.missed(waits)
    if not missed or holding == "host":
        return summary
    return _not_stable(summary, missed)


def _not_stable(summary: Summary, missed: str) -> Summary:
    verdict = "noisy" if summary.verdict == "stable" else summary.verdict
    return summary.model_copy(update={"verdict": verdict, "missed": (*summary.missed, missed)})


def _partial(plan: Plan, runs: Sequence[Run]) -> str:
    """What a reader of an interrupted measurement must know first."""
    rounds = len(runs[-1].arrays[samples.UNTOUCHED])
    where = f" in process {len(runs)} of {plan.processes}" if plan.processes > 1 else ""
    after = f"Interrupted after {rounds} of {plan.iterations} iterations{where}"
    return f"{after}: this record is partial."


def _absent(runs: Sequence[Run]) -> Mapping[str, str]:
    """The first process's, and why another one has no blocked rounds: then the record has none."""
    others = (run.facts.absent.get(samples.BLOCKED_QUEUE) for run in runs)
    why = next((reason for reason in others if reason), None)
    absent = runs[0].facts.absent
    return absent if why is None else {samples.BLOCKED_QUEUE: why, **absent}


def _functions_of(runs: Sequence[Run]) -> Sequence[RowFacts]:
    """The functions' rows; none where the processes saw different ones, as data may make them."""
    names = {tuple(row.path for row in run.facts.functions) for run in runs}
    return runs[0].facts.functions if len(names) == 1 else ()


def layer_rows(
    modules: Sequence[RowFacts],
    functions: Sequence[RowFacts],
    arrays: Sequence[Arrays],
    seed: int = 0,
) -> tuple[LayerRow, ...]:
    """A row for every module and function, in tree order, children in order of execution.

    Args:
        modules, functions: what the columns of the arrays are.
        arrays: the samples of each process, as in `layerbench.records.samples.Run`.
        seed: of the resampling.
    """
    inclusive = _pooled(arrays, samples.INCLUSIVE)
    own = _pooled(arrays, samples.SELF)
    if inclusive is None or own is None:
        return ()
    times = _module_times(modules, inclusive, own, arrays, seed)
    room = {row.path: own[:, index] for index, row in enumerate(modules)}
    facts = [*modules, *functions]
    rows = [
        *(
            _row(row, **{name: summaries.get(index) for name, summaries in times.items()})
            for index, row in enumerate(modules)
        ),
        *_function_rows(functions, room, arrays, seed),
    ]
    return tuple(_numbered(rows[place.row], place) for place in placed(facts[: len(rows)]))


def _numbered(row: LayerRow, place: Placed) -> LayerRow:
    if place.position is None:
        return row
    return row.model_copy(update={"position": place.position, "turn": place.turn})


def _resampler(arrays: Sequence[Arrays], name: str, seed: int) -> Resampler:
    return Resampler([len(run[name]) for run in arrays], seed=seed)


def _module_times(
    modules: Sequence[RowFacts],
    inclusive: Samples,
    own: Samples,
    arrays: Sequence[Arrays],
    seed: int,
) -> dict[str, dict[int, Summary]]:
    """By a row's field the summaries of all modules that ran, by their index."""
    resampler = _resampler(arrays, samples.INCLUSIVE, seed)
    ran = [index for index, row in enumerate(modules) if row.calls]
    whole = summaries_of(inclusive, ran, resampler)
    # A module that calls none has one time, and one summary.
    calling = (inclusive != own).any(axis=0)
    apart = summaries_of(own, [index for index in ran if calling[index]], resampler)
    hosts = (_pooled(arrays, samples.HOST + name) for name in (samples.INCLUSIVE, samples.SELF))
    name = samples.HOST + samples.INCLUSIVE
    of_host = _resampler(arrays, name, seed) if name in arrays[0] else resampler
    host, host_own = (summaries_of(times, ran, of_host) for times in hosts)
    return {
        "inclusive": whole,
        "self_": {**whole, **apart},
        "host_inclusive": host,
        "host_self": host_own,
    }


def summaries_of(
    nanoseconds: Samples | None, columns: Sequence[int], resampler: Resampler
) -> dict[int, Summary]:
    """Summaries of columns of an array of shape (rounds, columns); empty if not measured."""
    if nanoseconds is None or not columns:
        return {}
    seconds = nanoseconds.T[list(columns)].astype(np.float64) * NANOSECOND
    return dict(zip(columns, summarize_rows(seconds, resampler), strict=True))


def _pooled(arrays: Sequence[Arrays], name: str) -> Samples | None:
    """One array over all processes, or ``None`` where it was not measured."""
    if any(name not in run for run in arrays):
        return None
    return np.concatenate([run[name] for run in arrays])


def summary_of(nanoseconds: NDArray[np.generic] | None, resampler: Resampler) -> Summary:
    """The summary of times that were measured."""
    assert nanoseconds is not None
    return summarize(np.asarray(nanoseconds, dtype=np.float64) * NANOSECOND, resampler)


def _row(facts: RowFacts, **times: Summary | float | None) -> LayerRow:
    shared = facts.model_dump(exclude={"order", "module", "work"})
    work = facts.work.model_dump() if facts.work else {}
    return LayerRow.model_validate({**shared, **work, **times})


def _function_rows(
    functions: Sequence[RowFacts],
    own: Mapping[str, Samples],
    arrays: Sequence[Arrays],
    seed: int,
) -> list[LayerRow]:
    """Rows of the functions' pass, scaled down where a module's own time has no room for them.

    The pass runs at another time than the rounds, and the machine's speed drifts. A module's
    functions cannot take longer than the module itself, so both the mean and the median of
    their sum are held to the module's.
    """
    times = _pooled(arrays, samples.FUNCTIONS) if functions else None
    if times is None:
        return []
    resampler = _resampler(arrays, samples.FUNCTIONS, seed)
    of_module: dict[str, list[int]] = {}
    for index, facts in enumerate(functions):
        of_module.setdefault(facts.module or "", []).append(index)
    factors = np.ones(len(functions))
    for path, together in of_module.items():
        factors[together] = _room(times[:, together], own[path])
    scaled = (times * factors).T * NANOSECOND
    return [
        _row(facts, inclusive=summary, self_=summary, scaled=round(factor, 4))
        for facts, summary, factor in zip(
            functions, summarize_rows(scaled, resampler), factors.tolist(), strict=True
        )
    ]


def device_rounds(facts: RunFacts, arrays: Sequence[Arrays], seed: int = 0) -> DeviceRounds | None:
    """What the device did in rounds of their own; ``None`` where there were none.

    Where only the whole was timed, behind a blocked queue, there is no more than that.

    Args:
        facts: of one of the processes.
        arrays: the samples of each process.
        seed: of the resampling.
    """
    summaries = {
        name: summary_of(times, _resampler(arrays, name, seed))
        for name in (samples.SPAN, samples.IDLE, samples.BLOCKED)
        if (times := _pooled(arrays, name)) is not None
    }
    if summaries.keys().isdisjoint((samples.SPAN, samples.BLOCKED)):
        return None
    return DeviceRounds(how=facts.device_times, resolution_s=facts.resolution_s, **summaries)


def kernel_rows(runs: Sequence[Run], seed: int = 0) -> tuple[KernelRow, ...]:
    """The kernels, the longest first; none where the processes saw different ones."""
    facts, arrays = runs[0].facts.kernels, [run.arrays for run in runs]
    times = _pooled(arrays, samples.KERNELS) if facts else None
    if times is None or any(run.facts.kernels != facts for run in runs):
        return ()
    resampler = _resampler(arrays, samples.KERNELS, seed)
    summaries = summarize_rows(times.T.astype(np.float64) * NANOSECOND, resampler)
    in_order = runs[0].facts.compilation is not None
    rows = [
        KernelRow(**fact.model_dump(), time=summary, position=at if in_order else None)
        for at, (fact, summary) in enumerate(zip(facts, summaries, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: row.time.mean, reverse=True))


def with_isolated(
    rows: tuple[LayerRow, ...], runs: Sequence[Run], seed: int = 0
) -> tuple[LayerRow, ...]:
    """The rows, those of leaves with what they take alone; as they are where the processes differ.

    Args:
        rows: of the record.
        runs: one for each process.
        seed: of the resampling.
    """
    paths, arrays = runs[0].facts.isolated, [run.arrays for run in runs]
    if not paths or any(run.facts.isolated != paths for run in runs):
        return rows
    times: dict[str, dict[str, Summary]] = {path: {} for path in paths}
    for name in (samples.ISOLATED_HOT, samples.ISOLATED_COLD):
        resampler = _resampler(arrays, name, seed)
        found = summaries_of(_pooled(arrays, name), range(len(paths)), resampler)
        for path, summary in zip(paths, found.values(), strict=True):
            times[path][name] = summary
    return tuple(row.model_copy(update=times.get(row.path, {})) for row in rows)


def _room(functions: Samples, own: Samples) -> float:
    """The factor, at most 1, that fits a module's functions into its self time."""
    if functions.shape[0] == own.shape[0] and bool((functions.sum(axis=1) <= own).all()):
        return 1.0  # of the same rounds, in each of which they fit
    sum_of_means = float(functions.mean(axis=0).sum())
    sum_of_medians = float(np.median(functions, axis=0).sum())
    room = 1.0
    if sum_of_means > 0:
        room = min(room, float(own.mean()) / sum_of_means)
    if sum_of_medians > 0:
        room = min(room, float(np.median(own)) / sum_of_medians)
    return max(room, 0.0)


def _reconciliation(
    runs: Sequence[Run], arrays: Sequence[Arrays], resampler: Resampler
) -> Reconciliation | None:
    untouched = _pooled(arrays, samples.UNTOUCHED)
    instrumented = _pooled(arrays, samples.INSTRUMENTED)
    own = _pooled(arrays, samples.SELF)
    if untouched is None or instrumented is None or own is None:
        return None
    # A device may have nothing to do in some rounds: what is below a nanosecond counts as one.
    numerator, denominator = (np.maximum(times, 1.0) for times in (instrumented, untouched))
    overhead, low, high = paired_ratio(numerator, denominator, resampler)
    untouched_median = float(np.median(untouched))
    layers_sum = float(np.median(own.sum(axis=1)))
    # Integer sums: this ratio is exactly 1, or something was counted twice or not at all.
    conserved = _conserved(own, instrumented, arrays)
    blocked = _pooled(arrays, samples.BLOCKED)
    device_s = untouched_median if blocked is None else float(np.median(blocked))
    return Reconciliation(
        untouched_s=_seconds(untouched_median),
        instrumented_s=_seconds(float(np.median(instrumented))),
        overhead=overhead,
        overhead_low=low,
        overhead_high=high,
        self_sum_ratio=conserved,
        layers_sum_s=_seconds(layers_sum),
        layers_gap=_gap(layers_sum, device_s),
        mark_cost_s=max(run.facts.mark_cost_s for run in runs),
        event_s=_most(run.facts.event_s for run in runs),
        least_event_s=_most(run.facts.least_event_s for run in runs),
        wrapper_cost_s=max(run.facts.wrapper_cost_s for run in runs),
        timed_calls=sum(row.calls for row in runs[0].facts.modules if row.path),
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _conserved(own: Samples, instrumented: Samples, arrays: Sequence[Arrays]) -> float:
    """The rows' self times over the whole; in device rounds with the idle time, over the span."""
    span, idle = _pooled(arrays, samples.SPAN), _pooled(arrays, samples.IDLE)
    if span is None:
        return int(own.sum()) / int(instrumented.sum())
    idle_ns = 0 if idle is None else int(idle.sum())
    busy_ns, span_ns = int(own.sum()) + idle_ns, int(span.sum())
    # A model may run no kernel at all: then there is nothing to lose.
    return busy_ns / span_ns if span_ns else float(busy_ns == 0)


def _gap(layers: float, whole: float) -> float:
    """How much longer the layers are than the whole; 0 where the device had nothing to do."""
    return layers / whole - 1 if whole else 0.0


def _seconds(nanoseconds: float) -> float:
    return round(nanoseconds * NANOSECOND, 10)


def _environment(runs: Sequence[Run], partial: str, holding: Holding) -> Environment:
    """The first process's surroundings, the last one's end, the worst of what disturbed any."""
    all_of_them = [run.facts.environment for run in runs]
    first, last = all_of_them[0], all_of_them[-1]
    counts = (e.machine.other_processes_on_device for e in all_of_them)
    others = (count for count in counts if count is not None)
    machine = first.machine.model_copy(
        update={
            "load_after": last.machine.load_after,
            "steal_fraction": _worst(e.machine.steal_fraction for e in all_of_them),
            "other_work_fraction": _worst(e.machine.other_work_fraction for e in all_of_them),
            "other_processes_on_device": max(others, default=None),
        }
    )
    looks = [look for run in runs for look in run.facts.looks]
    conditions = DeviceConditions.of(looks) or first.conditions
    together = first.model_copy(
        update={
            "finished": last.finished,
            "machine": machine,
            "warnings": tuple(_warnings(all_of_them, conditions)),
            "conditions": conditions,
            "warm_up": WarmUp.together(e.warm_up for e in all_of_them),
        }
    )
    waited = together.with_waits(samples.waits_of([run.arrays for run in runs]), holding)
    if not partial:
        return waited
    return waited.model_copy(update={"warnings": (partial, *waited.warnings)})


def _warnings(processes: Sequence[Environment], together: DeviceConditions | None) -> Iterator[str]:
    """Those of all processes, each once; of the clock one, with that of all looks if it is low."""
    seen = [one.conditions for one in processes if one.conditions is not None]
    low = [one for one in seen if one.warning]
    if together is not None and together.warning:
        yield together.warning
    elif low:
        lowest = min(low, key=lambda one: one.clock_median_hz or 0.0).warning
        yield f"In {len(low)} of {len(processes)} processes: {lowest[0].lower()}{lowest[1:]}"
    of_clock = {one.warning for one in low}
    every = (warning for one in processes for warning in one.warnings)
    yield from dict.fromkeys(warning for warning in every if warning not in of_clock)


def _worst(fractions: Iterable[float | None]) -> float | None:
    return max((fraction for fraction in fractions if fraction is not None), default=None)


def _stop(runs: Sequence[Run]) -> StopReason:
    """The least satisfied of the processes' reasons."""
    reasons = {run.facts.stop for run in runs}
    if "interrupted" in reasons:
        return "interrupted"
    return "cap" if "cap" in reasons else runs[0].facts.stop


def kept_samples(runs: Sequence[Run]) -> Mapping[str, NDArray[np.generic]]:
    """All samples under the names that a reader of the ``.npz`` needs to find a row's.

    ``paths`` names the columns of ``inclusive`` and ``self``, ``function_paths`` those of
    ``functions``; ``process`` numbers the process of each round. Nanoseconds throughout.
    """
    facts = runs[0].facts
    arrays = [run.arrays for run in runs]
    same_kernels = all(run.facts.kernels == facts.kernels for run in runs)
    pooled = {
        name: _pooled(arrays, name) for name in arrays[0] if name != samples.KERNELS or same_kernels
    }
    kept: dict[str, NDArray[np.generic]] = {n: a for n, a in pooled.items() if a is not None}
    kept["paths"] = np.array([row.path for row in facts.modules], dtype=np.str_)
    kept["function_paths"] = np.array([row.path for row in _functions_of(runs)], dtype=np.str_)
    kept["process"] = np.repeat(
        np.arange(len(runs)), [len(run[samples.UNTOUCHED]) for run in arrays]
    )
    return kept
