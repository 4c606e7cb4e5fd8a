"""What a report says of leaves alone beside the same leaves in the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerbench import units
from layerbench.analysis.isolation import APART, Beside, Place, beside, sums
from layerbench.records.timing import Isolation, LayerRow, Profile
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout

# Of the whole, what a leaf takes at least to have a row where a report is short.
_LEAST = 0.005
_MOST_FAILED = 5

_MEANS: dict[Place, str] = {
    "below hot": "take less in the model than alone, so a repeated call does not stand for them",
    "between": "lie between hot and cold: in the model caches keep a part of what they read",
    "like cold": "are as slow as with cold caches: in the model they find nothing in the caches",
    "above both": (
        "are slower than even with cold caches: what surrounds them costs, such as new memory, "
        "launching or the queue"
    ),
}


def headline(record: Profile) -> str:
    """What all leaves take in the model and alone, and what most of the difference means."""
    leaves = beside(record)
    if not leaves:
        return ""
    all_of_them = sums(leaves)
    half = formatting.half_width(record.base)
    in_model, hot, cold = (
        units.seconds(time, half)
        for time in (all_of_them.in_context, all_of_them.hot, all_of_them.cold)
    )
    times = (
        f", {all_of_them.in_context / all_of_them.hot:.2f} times as long" if all_of_them.hot else ""
    )
    text = (
        f"Isolated: {_leaves(len(leaves))} {hot} "
        f"alone and hot, {cold} with cold caches, and {in_model} in the model{times} as hot."
    )
    counts = Counter(leaf.place for leaf in leaves)
    apart = [(place, counts[place]) for place in _MEANS if counts[place]]
    if not apart:
        return f"{text} None differs from hot by more than {units.percent(APART)}."
    place, number = max(apart, key=lambda each: each[1])
    return f"{text} {number} of {len(leaves)} {_MEANS[place]}."


def _leaves(number: int) -> str:
    return "1 leaf takes" if number == 1 else f"{units.count(number)} leaves take"


def section(record: Profile) -> layout.Section:
    """The leaves with their three times, and how these were taken."""
    how, leaves = record.isolation, beside(record)
    if how is None or not (leaves or how.failed):
        return layout.Section("", [])
    least = _LEAST * record.base.median
    large = [leaf for leaf in leaves if max(leaf.in_context.median, leaf.hot.median) >= least]
    verb = "is" if len(leaves) - len(large) == 1 else "are"
    left_out = (
        f"{len(leaves) - len(large)} more {verb} below "
        f"{units.percent(_LEAST, digits=1)} of the whole."
    )
    return layout.Section(
        "Leaves alone beside in the model (medians)",
        [
            _table(leaves, layout.FULL),
            _table(large, layout.BRIEF),
            layout.Text(left_out * (len(large) < len(leaves)), formats=layout.BRIEF),
            layout.Text(_how(record, how) if leaves else "", indented=False),
            layout.Text(_failed(how), indented=False),
        ],
    )


def _how(record: Profile, how: Isolation) -> str:
    swept = f"{units.bytes_(how.swept_bytes)} {'written' if record.device_rounds else 'read'}"
    caches = (
        f", and the last-level caches have {units.bytes_(how.cache_bytes)}"
        if how.cache_bytes
        else ""
    )
    return (
        f"Hot: {how.hot_calls} calls, each at once after another. Cold: {how.cold_calls} calls, "
        f"each after {swept} to sweep the caches{caches}. Where: a time differs from another where "
        f"it is more than {units.percent(APART)} longer and their intervals do not meet."
    )


def _failed(how: Isolation) -> str:
    said = [f"{path} ({why})" for path, why in how.failed.items()]
    more = f" and {len(said) - _MOST_FAILED} more" if len(said) > _MOST_FAILED else ""
    return f"Not run alone: {', '.join(said[:_MOST_FAILED])}{more}." if said else ""


def _table(leaves: Sequence[Beside], formats: frozenset[str]) -> layout.Table:
    header = ["path", "type", "in model ms", "hot ms", "±", "cold ms", "model / hot", "where"]
    rows = [
        [
            leaf.row.path,
            leaf.row.type,
            formatting.ms(leaf.in_context, "median"),
            formatting.ms(leaf.hot, "median"),
            formatting.relative_half_width(leaf.hot),
            formatting.ms(leaf.cold, "median"),
            "-" if leaf.ratio is None else f"{leaf.ratio:.2f}",
            leaf.place,
        ]
        for leaf in leaves
    ]
    return layout.Table(header, rows, "cl..r..l", omitted_first=(4, 1), formats=formats)


def columns(row: LayerRow) -> cells.Cells:
    """The columns of a leaf's two times alone; empty for other rows."""
    times = {"isolated_hot": row.isolated_hot, "isolated_cold": row.isolated_cold}
    return {
        f"{name}_{figure}_s": getattr(summary, figure, None)
        for name, summary in times.items()
        for figure in ("median", "mean", "std", "ci_low", "ci_high")
    }
