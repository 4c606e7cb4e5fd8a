"""Distributions behind the times, and repeats as one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from layerbench.records.bundle import Bundle
from layerbench.records.timing import Summary
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.rows import PageRow, figure, parents
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
    times: list[tuple[str, str, Callable[[PageRow], Summary | None]]] = []
    if bundle.profile:
        times += [
            ("time", "Time", figure("time", "inclusive")),
            ("own time", "Self time", figure("time", "self_")),
        ]
    if bundle.training:
        times += [
            ("forward", "Forward", figure("step", "forward")),
            ("backward", "Backward", figure("step", "backward")),
        ]
    said: dict[int, Summary] = {}
    for key, label, summary_of in times:
        summaries = {
            at: time
            for at, time in enumerate(map(summary_of, rows))
            if time is not None and not (key == "own time" and time == said.get(at))
        }
        said = summaries
        if summaries:
            yield Spread(
                key=key,
                label=label,
                fields=FIELDS,
                rows=tuple(
                    (at, *(rounded(getattr(time, name)) for name in FIELDS))
                    for at, time in summaries.items()
                ),
                verdict={
                    at: time.verdict for at, time in summaries.items() if time.verdict != "stable"
                },
                missed={at: time.missed for at, time in summaries.items() if time.missed},
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
            figures = [values[index] for index in members if values]
            some = [value for value in figures if value is not None]
            if some:
                total = rounded(sum(some)) if metric.area else None
                yield key, (total, min(some), rounded(statistics.median(some)), max(some))
