"""Two profiles in, a verdict on every row out. No torch. How and how well: docs/compare.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from layerbench import units
from layerbench.analysis import ratios
from layerbench.analysis.differences import differences
from layerbench.analysis.evidence import (
    Estimate,
    Evidence,
    Voids,
    launched_on_both,
    of_records,
    processes_of,
    timed_on_both,
    unlike_rows,
)
from layerbench.analysis.kernel_pairs import KernelPair, KernelPairs, kernel_pairs
from layerbench.analysis.launching import launching_s, needed_s
from layerbench.analysis.ratios import LogRatio
from layerbench.analysis.student_t import quantile
from layerbench.errors import ComparisonError
from layerbench.records.bounds import MOST_NAME, MOST_TEXT
from layerbench.records.bundle import Bundle, times_in
from layerbench.records.comparison import (
    Change,
    ComparedKernel,
    ComparedRow,
    Comparison,
    Judged,
    Side,
)
from layerbench.records.memory import MemoryReport
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.workload import Workload
from layerbench.units import by_x

THRESHOLD = 0.05
"""Smaller changes are the same to a reader: two copies of one model differ by up to 2 %."""

ALARM_RATE = 0.01
"""Of the comparisons of a thing with itself, the share in which any row may be called by chance."""

# What of it the whole, the blocks and all other rows may take. Fewer rows need less. Where rows
# have times on two clocks, each clock has half of the rows'; kernels have as much as one clock.
WHOLE_SHARE, BLOCKS_SHARE, ROWS_SHARE = 0.4, 0.3, 0.3


def compare(
    baseline: Profile | Bundle,
    contender: Profile | Bundle,
    *,
    names: tuple[str, str] = ("baseline", "contender"),
    threshold: float = THRESHOLD,
    same_model: bool = False,
) -> Comparison:
    """Compare two profiles that were measured one after the other.

    Args:
        baseline, contender: of the same model and input; everything else may differ. Of a bundle
            the times are compared; what both hold besides is said in the notes.
        names: what to call them, such as their files.
        threshold: see `Comparison`.
        same_model: whether the two are versions of one model, whatever they are called.

    Raises:
        ComparisonError: another model or input, or a record without times.
    """
    before, after = (
        _times(name, record) for name, record in zip(names, (baseline, contender), strict=True)
    )
    check_comparable(before.workload, after.workload, names, same_model=same_model)
    kernels = kernel_pairs(before, after)
    return judge(
        before,
        after,
        of_records(before, after, kernels.pairs),
        names=names,
        threshold=threshold,
        kernels=kernels,
        notes=tuple(_besides_times(baseline, contender)),
    )


def _times(name: str, record: Profile | Bundle) -> Profile:
    times = times_in(record)
    if times is not None:
        return times
    if isinstance(record, Bundle):
        raise ComparisonError(f"{name} holds no profile: only times can be compared")
    raise ComparisonError(f"{name} is not a profile: only profiles can be compared")


def _besides_times(baseline: Profile | Bundle, contender: Profile | Bundle) -> Iterator[str]:
    """What joined records say of both sides besides times, or that it is left out."""
    joined = [record for record in (baseline, contender) if isinstance(record, Bundle)]
    if len(joined) == 1:
        yield "Only the times are compared: one of the records is a profile."
    if len(joined) < 2:
        return
    reports = [record.memory for record in joined]
    peaks = [report.peak.bytes for report in reports if isinstance(report, MemoryReport)]
    if len(peaks) == len(joined):
        yield f"Peak of tensors in memory: {_both(peaks, units.bytes_)}."
    flops = [record.structure.flops for record in joined if record.structure]
    if len(flops) == len(joined):
        yield f"FLOPs of a forward: {_both(flops, partial(units.count, short=True))}."


def _both(figures: Sequence[int], text: Callable[[int], str]) -> str:
    """Two figures and the change between them."""
    before, after = figures
    if before == after:
        return f"{text(before)} in both"
    change = f", {100 * (after / before - 1):+.1f} %" if before else ""
    return f"{text(before)} in the baseline, {text(after)} in the contender{change}"


def check_comparable(
    baseline: Workload,
    contender: Workload,
    names: tuple[str, str],
    *,
    same_model: bool = False,
) -> None:
    """Refuse two measurements that are not of the same work.

    Args:
        baseline, contender: what each measured.
        names, same_model: as for `compare`.

    Raises:
        ComparisonError: says which files, and what each measured.
    """
    same_input = baseline.shape == contender.shape
    if same_model and same_input:
        return
    works = [work_of(workload) for workload in (baseline, contender)]
    if works[0] != works[1]:
        raise ComparisonError(
            f"{names[0]} measured {works[0]} and {names[1]} {works[1]}: only measurements of the "
            f"same model and input can be compared{_IF_VERSIONS if same_input else ''}"
        )


_IF_VERSIONS = "; versions of one model under two names, with --same-model (same_model=True)"


def work_of(workload: Workload) -> str:
    """What two records that are looked at together have in common: model and input."""
    return f"{workload.model} on {by_x(workload.shape)}"


def check_same_input(baseline: Workload, contender: Workload, names: tuple[str, str]) -> None:
    """Refuse to measure two models on different inputs.

    Raises:
        ComparisonError: with both inputs.
    """
    if baseline.shape != contender.shape:
        raise ComparisonError(
            f"{names[0]} would run on {by_x(baseline.shape)} and {names[1]} on "
            f"{by_x(contender.shape)}: give both the same --input and --batch"
        )


# --- verdicts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """A row of both sides."""

    row: LayerRow
    estimate: Estimate
    note: str


def judge(
    baseline: Profile,
    contender: Profile,
    evidence: Evidence,
    *,
    names: tuple[str, str],
    threshold: float = THRESHOLD,
    notes: Sequence[str] = (),
    kernels: KernelPairs = KernelPairs(),  # noqa: B008 - frozen
) -> Comparison:
    """Give every row its verdict.

    The whole model is judged alone; blocks together, all other rows together, and all kernels
    together. With probability 1 - `ALARM_RATE` nothing is called whose true change is none, or
    within the threshold.
    """
    pairs = list(_pairs(baseline, contender, evidence))
    on_host = list(_on_host(baseline, contender, evidence))
    voids = evidence.voids
    of_host = _Limits(math.log1p(threshold), evidence.allowance)
    limits = replace(of_host, allowance=evidence.allowance + evidence.clock_allowance)
    seen = [pair for at, pair in enumerate(kernels.pairs) if at in evidence.kernels]
    part = 1 / (1 + bool(on_host) + bool(seen))
    judged = limits.voided(voids.rows).of_rows(pairs, part)
    judged_on_host = of_host.voided(voids.host_rows).of_rows(on_host, part)
    judged_kernels = limits.voided(voids.rows).judgements(
        [evidence.kernels[at] for at in sorted(evidence.kernels)],
        part * (BLOCKS_SHARE + ROWS_SHARE),
    )
    void, in_part = _void(voids, bool(pairs), bool(on_host))
    root = LayerRow(path="", type=contender.model_type, kind="module", depth=0, calls=1)
    whole = _Pair(root, evidence.whole, "")
    before, after = (_paths(record) for record in (baseline, contender))
    return Comparison(
        baseline=_side(baseline, names[0]),
        contender=_side(contender, names[1]),
        method=evidence.method,
        threshold=threshold,
        allowance=math.expm1(evidence.allowance),
        clock_allowance=math.expm1(evidence.clock_allowance),
        alarm_rate=ALARM_RATE,
        void=void,
        void_in_part=in_part,
        whole=limits.voided(voids.whole).judged([whole], WHOLE_SHARE)[""],
        rows=tuple(judged[pair.row.path] for pair in pairs),
        host_rows=tuple(judged_on_host[pair.row.path] for pair in on_host),
        kernels=tuple(map(_compared_kernel, seen, judged_kernels)),
        kernels_beside=kernels.how,
        kernels_added=kernels.added,
        kernels_missing=kernels.missing,
        added=tuple(path for path in after if path not in before),
        missing=tuple(path for path in before if path not in after),
        differences=tuple(differences(baseline, contender)),
        notes=tuple(
            note[:MOST_TEXT]
            for note in (
                *notes,
                *_notes(baseline, contender, evidence, limits.threshold),
                *kernels.notes,
            )
        ),
    )


def _void(voids: Voids, with_rows: bool, on_host: bool) -> tuple[str, str]:
    """Why nothing can be told of any of these rows, or else of some."""
    reasons = [voids.whole]
    reasons += [voids.rows] if with_rows else []
    reasons += [voids.host_rows] if on_host else []
    why = " ".join(dict.fromkeys(filter(None, reasons)))[:MOST_TEXT]
    return (why, "") if all(reasons) else ("", why)


def _pairs(baseline: Profile, contender: Profile, evidence: Evidence) -> Iterator[_Pair]:
    timed = timed_on_both(baseline, contender)
    return _paired(baseline, contender, timed, evidence.rows)


def _on_host(baseline: Profile, contender: Profile, evidence: Evidence) -> Iterator[_Pair]:
    timed = launched_on_both(baseline, contender)
    return _paired(baseline, contender, timed, evidence.host_rows)


def _paired(
    baseline: Profile,
    contender: Profile,
    timed: Collection[str],
    estimates: Mapping[str, Estimate],
) -> Iterator[_Pair]:
    before = {row.path: row for row in baseline.layers}
    for row in contender.layers:
        if row.path in timed and row.path in estimates:
            yield _Pair(row, estimates[row.path], _row_note(before[row.path], row))


def _paths(record: Profile) -> dict[str, None]:
    return dict.fromkeys(row.path for row in record.layers if row.path and row.inclusive)


def _row_note(before: LayerRow, after: LayerRow) -> str:
    notes = []
    if before.type != after.type:
        notes.append(f"was {before.type}")
    if before.calls != after.calls:
        notes.append(f"calls: {before.calls} before, {after.calls} now")
    return "; ".join(notes)


@dataclass(frozen=True)
class _Limits:
    """What a change is measured by, as logarithms: see `Comparison`."""

    threshold: float
    allowance: float
    void: bool = False

    def voided(self, why: str) -> _Limits:
        """The same, for times of which nothing can be told where there is a reason."""
        return replace(self, void=bool(why))

    def of_rows(self, pairs: Sequence[_Pair], part: float) -> dict[str, ComparedRow]:
        """Rows on one clock by path: blocks together, and all others together.

        Args:
            pairs: of these rows.
            part: of the alarm rate of all rows.
        """
        blocks = [pair for pair in pairs if pair.row.block]
        others = [pair for pair in pairs if not pair.row.block]
        return {
            **self.judged(blocks, part * BLOCKS_SHARE),
            **self.judged(others, part * ROWS_SHARE),
        }

    def judged(self, family: Sequence[_Pair], share: float) -> dict[str, ComparedRow]:
        """Rows that are judged together, by path, with their share of the alarm rate."""
        judgements = self.judgements([pair.estimate for pair in family], share)
        return {
            pair.row.path: _compared_row(pair, judgement)
            for pair, judgement in zip(family, judgements, strict=True)
        }

    def judgements(self, family: Sequence[Estimate], share: float) -> list[Judged]:
        """What is said of estimates judged together, with their share of the alarm rate."""
        margin = self.threshold + self.allowance
        p_values = [estimate.ratio.p_beyond(margin) for estimate in family]
        called = ratios.rejected(p_values, share * ALARM_RATE)
        return [self._judgement(*one) for one in zip(family, p_values, called, strict=True)]

    def _judgement(self, estimate: Estimate, p: float, changed: bool) -> Judged:
        low, high = estimate.ratio.interval()
        return Judged(
            baseline_s=_rounded(estimate.baseline_s),
            contender_s=_rounded(estimate.contender_s),
            ratio=_rounded(estimate.ratio.ratio),
            ratio_low=_rounded(low),
            ratio_high=_rounded(high),
            p=_rounded(p),
            verdict=self._verdict(estimate.ratio.centre, low, high, changed),
        )

    def _verdict(self, centre: float, low: float, high: float, changed: bool) -> Change:
        if self.void:
            return "UNCLEAR"
        if changed:
            return "SLOWER" if centre > 0 else "FASTER"
        farthest = max(-math.log(low), math.log(high))
        return "SAME" if farthest + self.allowance <= self.threshold else "UNCLEAR"


def _compared_row(pair: _Pair, judged: Judged) -> ComparedRow:
    row = pair.row
    return ComparedRow(
        path=row.path,
        type=row.type,
        kind=row.kind,
        depth=row.depth,
        block=row.block,
        position=row.position,
        **{**dict(judged), "note": pair.note},
    )


def _compared_kernel(pair: KernelPair, judged: Judged) -> ComparedKernel:
    kernel = pair.kernel
    return ComparedKernel(
        name=kernel.name,
        module=kernel.module,
        function=kernel.function,
        layers=kernel.layers,
        beside=pair.beside,
        **{**dict(judged), "note": pair.note},
    )


def _rounded(value: float) -> float:
    """Six digits: a ratio is never known better, and all machines agree on so many."""
    return float(f"{value:.6g}")


# --- what else differs ---------------------------------------------------------------------


def _side(record: Profile, name: str) -> Side:
    return Side(
        name=name[:MOST_NAME],
        model_type=record.model_type,
        workload=record.workload,
        plan=record.plan,
        environment=record.environment,
        processes=processes_of(record),
    )


def _least_told(ratio: LogRatio, margin: float) -> float:
    """The smallest factor that the whole model would be called by."""
    reach = quantile(1 - 2 * WHOLE_SHARE * ALARM_RATE, ratio.df) * ratio.scale
    return math.exp(min(margin + reach, ratios.LARGEST))


def _notes(
    baseline: Profile, contender: Profile, evidence: Evidence, margin: float
) -> Iterator[str]:
    if evidence.method == "one process":
        alone = [
            name
            for name, record in (("baseline", baseline), ("contender", contender))
            if processes_of(record) == 1
        ]
        yield (
            f"Measured in one process: the {' and the '.join(alone)}. How far two processes of the "
            "same model lie apart is therefore not known but assumed: only a change of the whole "
            f"by a factor of about {_least_told(evidence.whole.ratio, margin):.1f} can be told, "
            "and larger ones of single rows. Measure both with --processes 5, or in turn with "
            "compare --live."
        )
    left_out = [
        path
        for path, times in timed_on_both(baseline, contender).items()
        # What runs nothing on the device takes 0 on both sides.
        if path not in evidence.rows and any(time.median for time in times)
    ]
    if left_out:
        yield f"Without a ratio, as some time is 0: {', '.join(left_out)}."
    yield from _on_clocks(baseline, contender)
    if baseline.environment.device.name != contender.environment.device.name:
        yield "Different devices: the verdicts are as much about them as about the model."
    for name, record in (("baseline", baseline), ("contender", contender)):
        if not record.layers:
            yield f"The {name} holds no layers: only the whole model is compared."
        if record.whole.missed and "live" not in evidence.method:
            missed = "; ".join(record.whole.missed)
            yield f"The {name}'s whole model is {record.whole.verdict}: {missed}."
        for note in record.notes:
            yield f"Of the {name}: {note}"
        for warning in record.environment.warnings:
            yield f"When the {name} was measured: {warning}"


def _on_clocks(baseline: Profile, contender: Profile) -> Iterator[str]:
    """What the times of rows are on an accelerator, and what the device needs on both sides."""
    unlike = unlike_rows(baseline, contender)
    if unlike:
        yield unlike
    hows = [
        rounds.how for one in (baseline, contender) if (rounds := one.device_rounds) and rounds.how
    ]
    if len(set(hows)) > 1:
        yield (
            f"The baseline's device times of rows are from {hows[0]}, the contender's from "
            f"{hows[1]}: short rows may differ for that alone."
        )
    kinds = {one.environment.device.kind for one in (baseline, contender)}
    if len(hows) == 1 and "cpu" in kinds:
        yield "Rows on the accelerator are times of the device alone, without launching."
    needs = [needed_s(one) for one in (baseline, contender)]
    costs = [launching_s(one) for one in (baseline, contender)]
    if None not in needs:
        yield f"What the device needs for a forward: {_both_times(needs)}."
    if None not in costs:
        yield f"What launching costs: {_both_times(costs)}."


def _both_times(times: Sequence[float | None]) -> str:
    before, after = (units.seconds(time or 0.0) for time in times)
    return f"{before} in the baseline, {after} in the contender"
