"""Distributions behind the times, and repeats as one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from layerbench.records.bundle import Bundle
from layerbench.records.timing import Summary
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.rows import PageRow, parents
from layerbench.reporters.html.schema import Changed, Fold, Metric, Spread, Stats

# So many siblings of one type are shown as one.
FEWEST_FOLDED = 3
# Whose type says nothing of what is in them: the stages of a network are no repeats.
CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
# Of a summary, in the order in which the page gets them.
FIELDS = (
    *("n", "mean", "std", "median", "min", "p5", "p25", "p75", "p95", "max"),
    *("ci_low", "ci_high"),
)


def spreads_of(bundle: Bundle, rows: Sequence[PageRow]) -> Iterator[Spread]:
    """The distributions of all times that were measured."""
    wanted: list[tuple[str, str, Callable[[PageRow], Summary | None]]] = []
    if bundle.profile:
        wanted += [
            ("time", "Time", lambda row: row.time.inclusive if row.time else None),
            ("own time", "Self time", lambda row: row.time.self_ if row.time else None),
        ]
    if bundle.training:
        wanted += [
            ("forward", "Forward", lambda row: row.step.forward if row.step else None),
            ("backward", "Backward", lambda row: row.step.backward if row.step else None),
        ]
    for key, label, summary in wanted:
        known = [(index, found) for index, row in enumerate(rows) if (found := summary(row))]
        if known:
            yield Spread(
                key=key,
                label=label,
                fields=FIELDS,
                rows=tuple(
                    (index, *(rounded(getattr(found, name)) for name in FIELDS))
                    for index, found in known
                ),
                verdict={
                    index: found.verdict for index, found in known if found.verdict != "stable"
                },
                missed={index: found.missed for index, found in known if found.missed},
            )


def folds_of(
    rows: Sequence[PageRow], metrics: Sequence[Metric], changed: Changed | None
) -> Iterator[Fold]:
    """Siblings of one type that follow each other, at least `FEWEST_FOLDED`."""
    children: dict[int, list[int]] = {}
    for index, above in enumerate(parents(rows)):
        children.setdefault(above, []).append(index)
    for above, siblings in children.items():
        for (type_, kind), group in groupby(
            siblings, key=lambda index: (rows[index].type, rows[index].kind)
        ):
            members = tuple(group)
            if above < 0 or kind != "module" or type_ in CONTAINERS:
                continue
            if len(members) < FEWEST_FOLDED:
                continue
            yield Fold(
                parent=above,
                members=members,
                type=type_,
                stats=dict(_stats_of(metrics, members)),
                verdicts=Counter(
                    verdict for index in members if changed and (verdict := changed.verdict[index])
                ),
            )


def _stats_of(metrics: Sequence[Metric], members: Sequence[int]) -> Iterator[tuple[str, Stats]]:
    for metric in metrics:
        for key, values in ((metric.key, metric.values), (f"own {metric.key}", metric.own)):
            known = [value for index in members if values and (value := values[index]) is not None]
            if known:
                total = rounded(sum(known)) if metric.area else None
                yield key, (total, min(known), rounded(statistics.median(known)), max(known))
