"""What runs that were measured in turn tell of their ratio. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from layerbench import ratios, samples
from layerbench.comparison import Evidence
from layerbench.defaults import FEWEST_ROUNDS
from layerbench.errors import ComparisonError
from layerbench.ratios import LogRatio
from layerbench.samples import RowFacts, Run
from layerbench.stats import Resampler, Samples

# Two copies of one model in one process do not take quite the same time: their tensors lie
# elsewhere. From three pairs of copies of MobileNet-V2 (docs/comparing.md): with 300 rounds their
# 20 blocks came out 0.5 to 0.9 % apart, of which the rounds themselves explain 0.7 %.
LAYOUT_SCALE = 0.005
LAYOUT_DF = 20.0


def of_rounds(pairs: Sequence[tuple[Run, Run]], seed: int = 0) -> Evidence:
    """What runs that were measured in turn tell (`layerbench.interleaved`).

    Args:
        pairs: baseline and contender, one pair for each process.
        seed: of the resampling, where there is one process.
    """
    whole = ratio_of_series([_series(pair, samples.UNTOUCHED) for pair in pairs], seed)
    if whole is None:
        raise ComparisonError(
            f"in turn, two models are compared by at least {FEWEST_ROUNDS} rounds, none of which "
            "took no time"
        )
    rows: dict[str, LogRatio] = {}
    for path, series in _row_series(pairs).items():
        ratio = ratio_of_series(series, seed)
        if ratio is not None:
            rows[path] = ratio
    return Evidence(
        method="live, processes" if len(pairs) > 1 else "live, one process", whole=whole, rows=rows
    )


def _row_series(pairs: Sequence[tuple[Run, Run]]) -> dict[str, list[Samples]]:
    """The rows that both sides have, each with its ratios round by round in every process."""
    found: dict[str, list[Samples]] = {}
    for pair in pairs:
        for name, rows_of in _KINDS.items():
            before, after = ({row.path: i for i, row in enumerate(rows_of(run))} for run in pair)
            for path, column in after.items():
                if path and path in before:
                    series = _series(pair, name, (before[path], column))
                    found.setdefault(path, []).append(series)
    return {path: series for path, series in found.items() if len(series) == len(pairs)}


_KINDS: Mapping[str, Callable[[Run], Sequence[RowFacts]]] = {
    samples.INCLUSIVE: lambda run: run.facts.modules,
    samples.FUNCTIONS: lambda run: run.facts.functions,
}


def _series(pair: tuple[Run, Run], name: str, columns: tuple[int, int] | None = None) -> Samples:
    """Contender over baseline, round by round; empty where they cannot be paired."""
    arrays = [run.arrays.get(name) for run in pair]
    if any(array is None for array in arrays):
        return np.empty(0)
    before, after = (
        array if columns is None else array[:, columns[side]]
        for side, array in enumerate(arrays)
        if array is not None
    )
    # Forwards whose work depended on data are left out of a run, and break its pairing.
    if len(before) != len(after) or not (before.all() and after.all()):
        return np.empty(0)
    ratios_: Samples = after / before
    return ratios_


def ratio_of_series(series: Sequence[Samples], seed: int) -> LogRatio | None:
    """The ratio from those of every round, in each process.

    Args:
        series: one array of ratios for each process.
        seed: of the resampling, where there is one process.

    Returns:
        ``None`` if a process has fewer than `FEWEST_ROUNDS`.
    """
    if any(one.size < FEWEST_ROUNDS for one in series):
        return None
    if len(series) > 1:
        return ratios.of_processes([float(np.median(one)) for one in series])
    low, high = Resampler([series[0].size], seed=seed).median_interval(series[0])
    found = ratios.of_interval(float(np.median(series[0])), low, high)
    return found.plus(LAYOUT_SCALE, LAYOUT_DF)
