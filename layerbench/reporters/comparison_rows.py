"""What the reports on a comparison share: how a change is written, and which rows come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerbench import units
from layerbench.records.comparison import CHANGES, ComparedRow, Comparison
from layerbench.reporters import formatting

METHODS = {
    "one process": "two records, one or both of one process; their spread is assumed",
    "processes": "two records of several processes each; how far processes lie apart is measured",
    "live, one process": "both measured in turn, in one process",
    "live, processes": "both measured in turn, in each of several fresh processes",
}

_BY_PROCESSES = "times are geometric means of the processes' medians, and their ratio the change"
_IN_TURN = "the change is the median round's, and the times are the median round's, apart by it"
_TIMES = {
    "one process": "times are medians, and their ratio the change",
    "processes": _BY_PROCESSES,
    "live, one process": _IN_TURN,
    "live, processes": _IN_TURN,
}


def title(record: Comparison) -> str:
    """The work, and the answer: ``resnet50 on pascal: SAME, +0.1 %; of the rows 1 SLOWER``."""
    return f"{work(record)}: {answer(record)}"


def answer(record: Comparison) -> str:
    """The outcome in a few words."""
    if record.void:
        return "UNCLEAR, the machine was too busy"
    called = Counter(row.verdict for row in record.rows)
    rows = ", ".join(f"{called[name]} {name}" for name in ("SLOWER", "FASTER") if called[name])
    more = f"; of the rows {rows}" if rows else ""
    return f"{record.whole.verdict}, {ratio(record.whole)}{more}"


def work(record: Comparison) -> str:
    """What ran, once if both sides name it alike."""
    before, after = (
        f"{formatting.model_name(side.workload)} on {side.workload.input}"
        for side in (record.baseline, record.contender)
    )
    return before if before == after else f"{before} → {after}"


def changed(record: Comparison) -> list[ComparedRow]:
    """The rows called SLOWER or FASTER, the largest loss of time first."""
    rows = [row for row in record.rows if row.verdict in ("SLOWER", "FASTER")]
    return sorted(rows, key=lambda row: row.baseline_s - row.contender_s)


def blocks(record: Comparison) -> list[ComparedRow]:
    """The rows of the block view, in order."""
    return [row for row in record.rows if row.block]


def counts(rows: Sequence[ComparedRow]) -> str:
    """``1 SLOWER, 0 FASTER, 180 SAME, 32 UNCLEAR``."""
    found = Counter(row.verdict for row in rows)
    return ", ".join(f"{found[change]} {change}" for change in CHANGES)


def ratio(row: ComparedRow) -> str:
    """The change in per cent: ``+10.2 %``."""
    return percent(row.ratio)


def interval(row: ComparedRow) -> str:
    """Its 95 % interval: ``[+8.1, +12.4]``."""
    low, high = (percent(bound).removesuffix(" %") for bound in (row.ratio_low, row.ratio_high))
    return f"[{low}, {high}]"


def percent(value: float) -> str:
    """A ratio as a change: 1.102 is ``+10.2 %``; twice and more as a factor would be unread."""
    return f"{(value - 1) * 100:+.1f} %"


# Digits of a time, as shares of it that its last digit may be: three show a change of a per cent,
# and more than five say nothing beside a change that is printed to a tenth of a per cent.
_COARSEST, _FINEST = 5e-3, 5e-4


def milliseconds(row: ComparedRow) -> tuple[str, str]:
    """Both times, to the digits that show the change, or that the ratio's interval leaves.

    They are by the change's own estimator: their ratio is the ratio printed, but for rounding.
    """
    known = row.baseline_s * (row.ratio_high - row.ratio_low) / 2
    least, apart = min(row.baseline_s, row.contender_s), abs(row.contender_s - row.baseline_s)
    # A change that is printed as none needs no digits to be seen.
    shown = min(known, apart) if apart > _FINEST * least else known
    last = min(max(shown, _FINEST * least), _COARSEST * least)
    return units.milliseconds(row.baseline_s, last), units.milliseconds(row.contender_s, last)


MOST_NAMED = 20


def named(paths: Sequence[str], quote: str = "") -> list[str]:
    """The first paths, each in quotes, and how many more there are."""
    more = len(paths) - MOST_NAMED
    shown = [f"{quote}{path}{quote}" for path in paths[:MOST_NAMED]]
    return [*shown, f"and {more} more"] if more > 0 else shown


def verdict_sentence(record: Comparison) -> str:
    """The outcome for the whole model in one sentence."""
    row = record.whole
    before, after = milliseconds(row)
    allowance = (
        f", and {units.percent(record.allowance, digits=1)} beyond that may be the machine's"
        if record.allowance
        else ""
    )
    return (
        f"The whole model is {row.verdict}: {before} ms → {after} ms, {ratio(row)} "
        f"{interval(row)} (95 % interval); changes up to "
        f"{units.percent(record.threshold, digits=1)}{allowance} count as none."
    )


def advice(record: Comparison) -> str:
    """What to do where little can be told of the two records; empty where there is nothing."""
    if record.method != "one process" or record.void:
        return ""
    return (
        "With one process on a side only large changes can be told: measure both with "
        "--processes 5, or compare --live."
    )


def method(record: Comparison) -> str:
    """How it was measured, what the times are, and how often chance calls a row."""
    rate = (
        f"; of comparisons of a model with itself at most {units.percent(record.alarm_rate)} call "
        "any row SLOWER or FASTER"
        if record.alarm_rate
        else ""
    )
    return f"{METHODS[record.method]}; {_TIMES[record.method]}{rate}"
