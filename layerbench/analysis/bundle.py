"""Several records of the same work as one bundle. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerbench.analysis.comparison import THRESHOLD, compare, work_of
from layerbench.errors import ComparisonError
from layerbench.records.bundle import Bundle, place_of
from layerbench.records.kinds import Record
from layerbench.records.timing import Profile


def joined(records: Sequence[tuple[str, Record]], threshold: float = THRESHOLD) -> Bundle:
    """One bundle of records of the same model and input.

    Args:
        records: with what each is called; of two profiles the first is the baseline. A bundle
            stands for the records in it; of two bundles the first stands for its profile alone.
        threshold: of a comparison of two profiles: smaller changes are the same.

    Raises:
        ComparisonError: they are of different work, there are two of one kind, or one of them has
            no rows of layers.
    """
    if len(records) == 1 and isinstance(records[0][1], Bundle):
        return records[0][1]
    bundles = [number for number, (_, one) in enumerate(records) if isinstance(one, Bundle)]
    records = [
        part
        for number, (name, record) in enumerate(records)
        for part in _parts(name, record, number in bundles[:-1])
    ]
    profiles = [(name, record) for name, record in records if isinstance(record, Profile)]
    if len(profiles) > 2:
        raise ComparisonError("at most two profiles can be compared in one report")
    kept: dict[str, tuple[str, Record]] = {}
    others = [(name, record) for name, record in records if not isinstance(record, Profile)]
    # Of two profiles the latter is shown, with the former beside it.
    for name, record in [*others, *profiles[-1:]]:
        _keep(kept, name, record)
    _check_same_work([*kept.values()])
    parts = {place: record for place, (_, record) in kept.items()}
    if len(profiles) > 1:
        if "comparison" in kept:
            raise ComparisonError(
                f"{kept['comparison'][0]} is a comparison already: leave it or one profile out"
            )
        (first, baseline), (second, contender) = profiles
        parts["baseline"] = baseline
        parts["comparison"] = compare(
            baseline, contender, names=(first, second), threshold=threshold
        )
    return Bundle.model_validate(parts)


def _parts(name: str, record: Record, is_baseline: bool) -> list[tuple[str, Record]]:
    """What is put together: of a bundle what it holds, but for what it compared before."""
    if not isinstance(record, Bundle):
        return [(name, record)]
    if is_baseline and record.profile is not None:
        return [(name, record.profile)]
    parts = record.parts()
    return [(name, parts[place]) for place in parts if place not in ("comparison", "baseline")]


def _keep(kept: dict[str, tuple[str, Record]], name: str, record: Record) -> None:
    place = place_of(record)
    if place is None:
        raise ComparisonError(
            f"{name} holds a {record.record} record, which has no rows of layers: render it on its "
            "own"
        )
    if place in kept:
        raise ComparisonError(
            f"{kept[place][0]} and {name} are both {record.record} records: only profiles are "
            "compared"
        )
    kept[place] = (name, record)


def _check_same_work(named: Sequence[tuple[str, Record]]) -> None:
    works = [(name, _work(record)) for name, record in named]
    first, work = works[0]
    for name, other in works[1:]:
        if other != work:
            raise ComparisonError(
                f"{first} is of {work} and {name} of {other}: a report is of one model and input"
            )


def _work(record: Any) -> str:  # noqa: ANN401 - of any kind that has rows of layers
    return work_of(getattr(record, "contender", record).workload)
