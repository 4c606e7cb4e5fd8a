"""Two profiles in, a verdict on every row out. No torch. How and how well: docs/comparing.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from layerbench.analysis import ratios
from layerbench.analysis.ratios import LogRatio
from layerbench.analysis.student_t import quantile
from layerbench.environment import contention
from layerbench.environment.watch import Environment
from layerbench.errors import ComparisonError
from layerbench.records import (
    Change,
    ComparedRow,
    Comparison,
    Difference,
    LayerRow,
    Method,
    Profile,
    Side,
    Summary,
)
from layerbench.records.bounds import MOST_NAME, MOST_TEXT
from layerbench.records.workload import Frozen, Workload

THRESHOLD = 0.05
"""Smaller changes are the same to a reader: two copies of one model differ by up to 2 %."""

ALARM_RATE = 0.01
"""Of the comparisons of a thing with itself, the share in which any row may be called by chance."""

# What of it the whole, the blocks and all other rows may take. Fewer rows need less.
WHOLE_SHARE, BLOCKS_SHARE, ROWS_SHARE = 0.4, 0.3, 0.3


@dataclass(frozen=True)
class Apart:
    """How far two processes of one model are assumed to lie apart, as Student's distribution.

    Attributes:
        scale: of the logarithm of the ratio of their medians.
        df: degrees of freedom.
    """

    scale: float
    df: float


# One process each: nobody knows how far two processes of one model would lie apart, and what was
# measured on a busy two-core machine is taken. Medians of the whole and of blocks differed by 9 %
# in half of the pairs, and by 32 % in one of twenty; those of all rows, many of microseconds, by
# 12 %, and by 65 to 80 % (docs/comparing.md).
WHOLES_APART = Apart(0.12, 5.0)
ROWS_APART = Apart(0.15, 3.0)


@dataclass(frozen=True)
class Estimate:
    """What is known of one row, times and ratio by the same estimator.

    Attributes:
        ratio: contender over baseline.
        level_s: the geometric mean of both sides' times.
    """

    ratio: LogRatio
    level_s: float

    @property
    def baseline_s(self) -> float:
        """The baseline's time."""
        return self.level_s * math.exp(-self.ratio.centre / 2)

    @property
    def contender_s(self) -> float:
        """The contender's time: the ratio times the baseline's."""
        return self.level_s * math.exp(self.ratio.centre / 2)


@dataclass(frozen=True)
class Evidence:
    """What is known of the ratios.

    Attributes:
        method: how it came about.
        whole: of the untouched whole model.
        rows: of the rows that both sides have, by path.
        allowance: of the logarithm, for what the machine may have changed by between the sides.
        void: why nothing can be told, in one or two sentences; empty where it can.
    """

    method: Method
    whole: Estimate
    rows: Mapping[str, Estimate]
    allowance: float = 0.0
    void: str = ""


def compare(
    baseline: Profile,
    contender: Profile,
    *,
    names: tuple[str, str] = ("baseline", "contender"),
    threshold: float = THRESHOLD,
    same_model: bool = False,
) -> Comparison:
    """Compare two profiles that were measured one after the other.

    Args:
        baseline, contender: of the same model and input; everything else may differ.
        names: what to call them, such as their files.
        threshold: see `Comparison`.
        same_model: whether the two are versions of one model, whatever they are called.

    Raises:
        ComparisonError: another model or input.
    """
    check_comparable(baseline, contender, names, same_model=same_model)
    return judge(
        baseline, contender, of_records(baseline, contender), names=names, threshold=threshold
    )


def check_comparable(
    baseline: Profile,
    contender: Profile,
    names: tuple[str, str],
    *,
    same_model: bool = False,
) -> None:
    """Refuse two measurements that are not of the same work.

    Args:
        baseline, contender, names, same_model: as for `compare`.

    Raises:
        ComparisonError: says which files, and what each measured.
    """
    same_input = baseline.workload.shape == contender.workload.shape
    if same_model and same_input:
        return
    works = [f"{one.workload.model} on {_shape(one.workload)}" for one in (baseline, contender)]
    if works[0] != works[1]:
        raise ComparisonError(
            f"{names[0]} measured {works[0]} and {names[1]} {works[1]}: only measurements of the "
            f"same model and input can be compared{_IF_VERSIONS if same_input else ''}"
        )


_IF_VERSIONS = "; versions of one model under two names, with --same-model (same_model=True)"


def check_same_input(baseline: Workload, contender: Workload, names: tuple[str, str]) -> None:
    """Refuse to measure two models on different inputs.

    Raises:
        ComparisonError: with both inputs.
    """
    if baseline.shape != contender.shape:
        raise ComparisonError(
            f"{names[0]} would run on {_shape(baseline)} and {names[1]} on {_shape(contender)}: "
            "give both the same --input and --batch"
        )


def _shape(workload: Workload) -> str:
    return "x".join(map(str, workload.shape))


# --- evidence ------------------------------------------------------------------------------


def of_records(baseline: Profile, contender: Profile) -> Evidence:
    """What two records tell: they hold no samples, but the median of each process."""
    several = min(processes_of(baseline), processes_of(contender)) > 1
    pairs = _timed_on_both(baseline, contender)
    blocks = {row.path for row in contender.layers if row.block}
    rows = {
        path: estimate
        for path, (before, after) in pairs.items()
        if (estimate := _estimate(before, after, WHOLES_APART if path in blocks else ROWS_APART))
        is not None
    }
    whole = _estimate(baseline.whole, contender.whole, WHOLES_APART)
    if whole is None:
        raise ComparisonError("a whole model that took no time cannot be compared")
    return Evidence(
        method="processes" if several else "one process",
        whole=whole,
        rows=rows,
        allowance=session_allowance(baseline, contender) if several else 0.0,
        void=_too_busy(baseline, contender),
    )


def _too_busy(baseline: Profile, contender: Profile) -> str:
    """Why a side's times mean nothing; empty where both sides' do."""
    for name, record in (("baseline", baseline), ("contender", contender)):
        machine = record.environment.machine
        reason = machine.too_busy
        if machine.waits is None and record.environment.device.kind == "cpu":
            threads = machine.threads or record.plan.threads
            reason = contention.crowded(machine.other_work_fraction, threads, machine.cores)
        if reason:
            return f"Of the {name}: {reason}"
    return ""


def processes_of(record: Profile) -> int:
    """Fresh processes that a record was measured in."""
    return max(1, len(record.process_medians))


def session_allowance(baseline: Profile, contender: Profile) -> float:
    """What the machine may have changed by from one measurement to the other, as a logarithm.

    A machine that gives fresh processes different times also changes between two measurements;
    the spread of the whole model's process medians, on both sides together, is what is known of
    it.
    """
    records = (baseline, contender)
    if any(median <= 0 for record in records for median in record.process_medians):
        raise ComparisonError("a whole model that took no time in a process cannot be compared")
    groups = [[math.log(median) for median in record.process_medians] for record in records]
    deviations = [value - sum(group) / len(group) for group in groups for value in group]
    df = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum(value**2 for value in deviations) / df)


def _estimate(baseline: Summary, contender: Summary, apart: Apart) -> Estimate | None:
    """``None`` where a time of 0 leaves no ratio."""
    before, after = baseline.process_medians, contender.process_medians
    try:
        first, second = (_alone(one) for one in (baseline, contender))
        if min(len(before), len(after)) > 1:
            ratio = ratios.of_groups(before, after)
        else:
            scale = math.hypot(first.scale, second.scale, apart.scale)
            ratio = LogRatio(second.centre - first.centre, scale, apart.df)
    except ValueError:
        return None
    return Estimate(ratio, math.exp((first.centre + second.centre) / 2))


def _alone(summary: Summary) -> LogRatio:
    """The logarithm of one side's time: by its processes, or by its interval where it has one.

    Raises:
        ValueError: a time that is not positive.
    """
    if len(summary.process_medians) > 1:
        return ratios.of_processes(summary.process_medians)
    return ratios.of_interval(summary.median, summary.ci_low, summary.ci_high)


# --- verdicts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """A row of both sides."""

    row: LayerRow
    known: Estimate
    note: str


def judge(
    baseline: Profile,
    contender: Profile,
    evidence: Evidence,
    *,
    names: tuple[str, str],
    threshold: float = THRESHOLD,
    notes: Sequence[str] = (),
) -> Comparison:
    """Give every row its verdict.

    The whole model is judged alone; blocks together, and all other rows together. With probability
    1 - `ALARM_RATE` no row is called whose true change is none, or within the threshold.
    """
    pairs = list(_pairs(baseline, contender, evidence))
    limits = _Limits(math.log1p(threshold), evidence.allowance, bool(evidence.void))
    judged = {
        **limits.judged([pair for pair in pairs if pair.row.block], BLOCKS_SHARE),
        **limits.judged([pair for pair in pairs if not pair.row.block], ROWS_SHARE),
    }
    root = LayerRow(path="", type=contender.model_type, kind="module", depth=0, calls=1)
    whole = _Pair(root, evidence.whole, "")
    before, after = (_paths(record) for record in (baseline, contender))
    return Comparison(
        baseline=_side(baseline, names[0]),
        contender=_side(contender, names[1]),
        method=evidence.method,
        threshold=threshold,
        allowance=math.expm1(evidence.allowance),
        alarm_rate=ALARM_RATE,
        void=evidence.void,
        whole=limits.judged([whole], WHOLE_SHARE)[""],
        rows=tuple(judged[pair.row.path] for pair in pairs),
        added=tuple(path for path in after if path not in before),
        missing=tuple(path for path in before if path not in after),
        differences=tuple(differences(baseline, contender)),
        notes=tuple(
            note[:MOST_TEXT]
            for note in (*notes, *_notes(baseline, contender, evidence, limits.threshold))
        ),
    )


def _pairs(baseline: Profile, contender: Profile, evidence: Evidence) -> Iterator[_Pair]:
    timed = _timed_on_both(baseline, contender)
    before = {row.path: row for row in baseline.layers}
    for row in contender.layers:
        if row.path in timed and row.path in evidence.rows:
            yield _Pair(row, evidence.rows[row.path], _row_note(before[row.path], row))


def _timed_on_both(baseline: Profile, contender: Profile) -> dict[str, tuple[Summary, Summary]]:
    """Times of the rows below the whole that both sides have, in the contender's order."""
    before = {row.path: row.inclusive for row in baseline.layers}
    return {
        row.path: (earlier, row.inclusive)
        for row in contender.layers
        if row.path and row.inclusive and (earlier := before.get(row.path)) is not None
    }


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
    void: bool

    def judged(self, family: Sequence[_Pair], share: float) -> dict[str, ComparedRow]:
        """Rows that are judged together, by path, with their share of the alarm rate."""
        margin = self.threshold + self.allowance
        p_values = [pair.known.ratio.p_beyond(margin) for pair in family]
        found = ratios.rejected(p_values, share * ALARM_RATE)
        return {
            pair.row.path: self._row(pair, p, changed)
            for pair, p, changed in zip(family, p_values, found, strict=True)
        }

    def _row(self, pair: _Pair, p: float, changed: bool) -> ComparedRow:
        row, known = pair.row, pair.known
        low, high = known.ratio.interval()
        return ComparedRow(
            path=row.path,
            type=row.type,
            kind=row.kind,
            depth=row.depth,
            block=row.block,
            position=row.position,
            baseline_s=_rounded(known.baseline_s),
            contender_s=_rounded(known.contender_s),
            ratio=_rounded(known.ratio.ratio),
            ratio_low=_rounded(low),
            ratio_high=_rounded(high),
            p=_rounded(p),
            verdict=self._verdict(known.ratio.centre, low, high, changed),
            note=pair.note,
        )

    def _verdict(self, centre: float, low: float, high: float, changed: bool) -> Change:
        if self.void:
            return "UNCLEAR"
        if changed:
            return "SLOWER" if centre > 0 else "FASTER"
        farthest = max(-math.log(low), math.log(high))
        return "SAME" if farthest + self.allowance <= self.threshold else "UNCLEAR"


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


def differences(baseline: Profile, contender: Profile) -> Iterator[Difference]:
    """What is not the same in workload, plan and surroundings, in this order."""
    for where in ("workload", "plan"):
        yield from _fields(where, getattr(baseline, where), getattr(contender, where))
    before, after = (_surroundings(record.environment) for record in (baseline, contender))
    for what in dict.fromkeys([*before, *after]):
        if before.get(what) != after.get(what):
            yield _difference("environment", what, before.get(what), after.get(what))


def _fields(where: str, before: Frozen, after: Frozen) -> Iterator[Difference]:
    for name in type(before).model_fields:
        first, second = getattr(before, name), getattr(after, name)
        if first != second:
            yield _difference(where, name, first, second)


def _difference(where: str, what: str, before: object, after: object) -> Difference:
    texts = {"baseline": _text(before)[:MOST_TEXT], "contender": _text(after)[:MOST_TEXT]}
    return Difference.model_validate({"where": where, "what": what, **texts})


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "-" if value is None else str(value)


def _surroundings(environment: Environment) -> dict[str, object]:
    """What could change a time, and is no measurement itself."""
    machine, software, device = environment.machine, environment.software, environment.device
    return {
        "device": device.name,
        "memory of the device": device.memory_bytes,
        **device.details,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "affinity": None if machine.affinity is None else ",".join(map(str, machine.affinity)),
        "threads": machine.threads,
        "interop threads": machine.interop_threads,
        "governor": machine.governor,
        "boost": machine.boost,
        "os": machine.os,
        "python": software.python,
        **software.packages,
        **software.settings,
        "layerbench": software.layerbench,
        "commit": f"{software.commit}{' with changes' if software.dirty else ''}",
    }


def _least_told(known: LogRatio, margin: float) -> float:
    """The smallest factor that the whole model would be called by."""
    reach = quantile(1 - 2 * WHOLE_SHARE * ALARM_RATE, known.df) * known.scale
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
    left_out = [path for path in _timed_on_both(baseline, contender) if path not in evidence.rows]
    if left_out:
        yield f"Without a ratio, as some time is 0: {', '.join(left_out)}."
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
