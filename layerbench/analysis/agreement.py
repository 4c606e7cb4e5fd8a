"""How far the rounds on an accelerator agree with each other, and which rows that concerns.

Each kind of rounds disturbs something: the profiler slows the host, marks on the host's clock take
time, and between two kernels lies what no kernel accounts for. Here are the figures that should be
the same, and the rows for which a difference may matter. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import fsum
from typing import Literal

from layerbench.analysis.launching import APART, needed_s
from layerbench.records.timing import LayerRow, Profile, Summary
from layerbench.records.tree import parent

What = Literal["rows", "host", "span"]


@dataclass(frozen=True)
class Agreement:
    """Two figures that should be the same.

    Attributes:
        what: ``rows``, the sum of the rows' device times against what the device needs; ``host``,
            the whole in host rounds against the untouched one; ``span``, that of the profiled
            rounds against the untouched whole.
        apart: the first less the second, over the second.
        paths: of layers whose times it may change by more than `APART`, where it is more itself;
            it is taken to be the same for each kernel, or for each call.
    """

    what: What
    apart: float
    paths: tuple[str, ...] = ()

    @property
    def is_worth_a_word(self) -> bool:
        """Whether they are further apart than rounds usually are."""
        return abs(self.apart) > APART


def span_ratio(record: Profile) -> float | None:
    """The rows' self times and the idle time over the span; 1 but for the rounding of the means."""
    rounds = record.device_rounds
    if rounds is None or rounds.span is None or rounds.idle is None:
        return None
    if not record.layers or not rounds.span.mean:
        return None
    return (_sum_of_rows(record) + rounds.idle.mean) / rounds.span.mean


def agreements(record: Profile) -> list[Agreement]:
    """What can be set side by side in a record with device rounds; nothing in another."""
    if record.device_rounds is None:
        return []
    return [*_of_rows(record), *_of_host(record), *_of_span(record)]


def _sum_of_rows(record: Profile) -> float:
    """Means: those of parts add up to the mean of the whole."""
    own = (row.self_ for row in record.layers if row.kind == "module")
    return fsum(time.mean for time in own if time)


def _of_rows(record: Profile) -> Iterator[Agreement]:
    needed = needed_s(record)
    rounds = record.device_rounds
    if not record.layers or not needed or rounds is None or rounds.blocked is None:
        return
    costs = record.reconciliation
    summed = costs.layers_sum_s if costs else _sum_of_rows(record)
    kernels = record.layers[0].kernels
    each = abs(needed - summed) / kernels if kernels else 0.0
    apart = summed / needed - 1
    yield Agreement("rows", apart, _concerned(record, apart, each, _kernels, _device_s))


def _of_host(record: Profile) -> Iterator[Agreement]:
    costs = record.reconciliation
    if costs is None or not costs.timed_calls:
        return
    apart = costs.overhead - 1
    each = abs(apart) * costs.untouched_s / costs.timed_calls
    yield Agreement("host", apart, _concerned(record, apart, each, _calls, _host_s))


def _of_span(record: Profile) -> Iterator[Agreement]:
    rounds = record.device_rounds
    if rounds is None or rounds.span is None or rounds.idle is None:
        return
    if record.whole.median:
        yield Agreement("span", rounds.span.median / record.whole.median - 1)


def _concerned(
    record: Profile,
    apart: float,
    each: float,
    number: Callable[[LayerRow], int | None],
    time_s: Callable[[LayerRow], float | None],
) -> tuple[str, ...]:
    """The layers for which so much for each kernel, or call, is more than `APART` of the time."""
    if abs(apart) <= APART:
        return ()
    holding = {parent(row.path) for row in record.layers if row.path and row.kind == "module"}
    leaves = [row for row in record.layers if row.kind == "module" and row.path not in holding]
    return tuple(
        row.path
        for row in leaves
        if (counted := number(row)) and (time := time_s(row)) and counted * each > APART * time
    )


def _kernels(row: LayerRow) -> int | None:
    return row.kernels


def _calls(row: LayerRow) -> int | None:
    return row.calls


def _device_s(row: LayerRow) -> float | None:
    return _median(row.inclusive)


def _host_s(row: LayerRow) -> float | None:
    return _median(row.host_inclusive)


def _median(time: Summary | None) -> float | None:
    return None if time is None else time.median
