"""What the reports on a comparison share: how a change is written, and which rows come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerbench import units
from layerbench.records import CHANGES, ComparedRow, Comparison
from layerbench.reporters import layout

METHODS = {
    "one process": "two records, one or both of one process; their spread is assumed",
    "processes": "two records of several processes each; how far processes lie apart is measured",
    "live, one process": "both measured in turn, in one process",
    "live, processes": "both measured in turn, in each of several fresh processes",
}


def title(record: Comparison) -> str:
    """The work, once if both sides name it alike."""
    before, after = (
        f"{layout.model_name(side.workload)} on {side.workload.input}"
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


def milliseconds(row: ComparedRow) -> tuple[str, str]:
    """Both medians, to the digits that the ratio's interval leaves."""
    half = (row.ratio_high - row.ratio_low) / 2
    before = units.milliseconds(row.baseline_s, half * row.baseline_s)
    return before, units.milliseconds(row.contender_s, half * row.baseline_s)


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
