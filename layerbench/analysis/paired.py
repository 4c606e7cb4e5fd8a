"""The ratio of two runs that were measured in alternation. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis import disturbance, ratios
from layerbench.analysis.aggregation import device_rounds
from layerbench.analysis.disturbance import of_device
from layerbench.analysis.evidence import Estimate, Evidence, Voids
from layerbench.analysis.kernel_pairs import KernelPair
from layerbench.analysis.own_times import OwnTimes
from layerbench.analysis.ratios import LogRatio
from layerbench.analysis.statistics import Resampler, Samples
from layerbench.errors import ComparisonError
from layerbench.records import contention, samples
from layerbench.records.contention import Holding, Waits
from layerbench.records.defaults import FEWEST_ROUNDS
from layerbench.records.samples import RowFacts, Run
from layerbench.units import NANOSECOND

# Two copies of one model in one process do not take quite the same time. Their weights lie
# elsewhere, which is why they are moved every few rounds (`layerbench.instruments.placement`); how
# far two places lie apart is then seen, and this is only what is believed before, worth so many
# places.
LAYOUT_SCALE = 0.01
LAYOUT_DF = 4.0
# A layer of a model that lay in one place only, being compiled or measured in few rounds: this is
# what layers of MobileNet-V2 lay apart. The whole, in which layers average out, lay 0.6 % apart.
LAYER_SCALE = 0.04
# Python's objects, which do not move, lie elsewhere, too: a few cache lines more or less. Of 14
# comparisons of MobileNet-V2 with itself on a busy machine, 2982 rows, the p-values came out as
# they should (5.1 % below 5 %, 1.0 % below 1 %) with this; a row of 14 us may differ by 7 %.
OBJECTS_S = 5e-7
OBJECTS_DF = 10.0
# A median of fewer rounds is one round's.
FEWEST_IN_A_PLACE = 3
# Of the rounds, this share must have had its cores: else the machine was too busy.
FEWEST_QUIET = 0.5

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Series:
    """One row's times on both sides, round by round, in one process.

    Attributes:
        before, after: seconds, shape (rounds,).
        places: the number of the place that the weights then had.
        error: standard error of the level of both, of the logarithm, besides that of the rounds.
    """

    before: Samples
    after: Samples
    places: NDArray[np.int64]
    error: float = 0.0


def of_rounds(
    pairs: Sequence[tuple[Run, Run]], seed: int = 0, kernels: Sequence[KernelPair] = ()
) -> Evidence:
    """The evidence of runs measured in alternation (`layerbench.profilers.paired`).

    Rounds in which either side waited for a core do not count. Where most did, nothing can be
    told, which the evidence says. Device times from kernels hold no such waits: of them, every
    round counts.

    Args:
        pairs: baseline and contender, one pair for each process.
        seed: of the resampling.
        kernels: pairs of kernels to be compared, too.

    Raises:
        ComparisonError: too few rounds.
    """
    whole = estimate([_series(pair, samples.UNTOUCHED) for pair in pairs], seed)
    if whole is None:
        raise ComparisonError(
            f"a live comparison needs at least {FEWEST_ROUNDS} rounds with times above 0"
        )
    # An accelerator's memory has no pages and caches of this kind.
    on_cpu = pairs[0][0].facts.environment.device.kind == "cpu"
    alone = LAYER_SCALE if on_cpu else LAYOUT_SCALE
    apart = all(run.facts.device_times is not None for pair in pairs for run in pair)
    on_host = _row_series(pairs, _ON_HOST) if apart else {}
    own = [(OwnTimes(before, seed), OwnTimes(after, seed)) for before, after in pairs]
    rows = {**_row_series(pairs, _KINDS), **_functions_beside_compiled(pairs, own)}
    return Evidence(
        method="live, processes" if len(pairs) > 1 else "live, one process",
        whole=whole,
        rows=_estimates(rows, seed, alone),
        voids=_voids(pairs),
        host_rows=_estimates(on_host, seed, LAYER_SCALE),
        kernels=_estimates(_kernel_series(pairs, own, kernels), seed, alone),
    )


def _estimates(
    series_of: Mapping[_Key, Sequence[Series | None]], seed: int, alone: float
) -> dict[_Key, Estimate]:
    """Of the rows that have enough rounds, by path; of kernels by number."""
    estimates = {key: estimate(series, seed, alone) for key, series in series_of.items()}
    return {key: of_row for key, of_row in estimates.items() if of_row is not None}


# --- rounds --------------------------------------------------------------------------------


def _row_series(
    pairs: Sequence[tuple[Run, Run]], kinds: Mapping[str, _RowsOf]
) -> dict[str, list[Series | None]]:
    """The rows of these arrays that both sides have in every process."""
    series_of: dict[str, list[Series | None]] = {}
    for pair in pairs:
        for name, rows_of in kinds.items():
            before, after = ({row.path: i for i, row in enumerate(rows_of(run))} for run in pair)
            for path, column in after.items():
                if path and path in before:
                    series = _series(pair, name, (before[path], column))
                    series_of.setdefault(path, []).append(series)
    return {path: series for path, series in series_of.items() if len(series) == len(pairs)}


_Own = Sequence[tuple[OwnTimes, OwnTimes]]


def _functions_beside_compiled(
    pairs: Sequence[tuple[Run, Run]], own: _Own
) -> dict[str, list[Series | None]]:
    """Functions of which one side only has times in a pass of their own: in the rounds of all.

    The other side is compiled, and knows them from its kernels in every round.
    """
    if any(_is_compiled(before) == _is_compiled(after) for before, after in pairs):
        return {}
    # Kernels on a device tell functions in every round.
    if any(run.facts.device_times is not None for pair in pairs for run in pair):
        return {}
    paths = [[row.path for row in run.facts.functions] for pair in pairs for run in pair]
    common = [path for path in paths[0] if all(path in others for others in paths)]
    series_of = {}
    for path in common:
        times = [
            [
                _columns_of(run, path) or one.of_row(path)
                for run, one in zip(pair, both, strict=True)
            ]
            for pair, both in zip(pairs, own, strict=True)
        ]
        series_of[path] = [
            _in_rounds(pair, samples.INCLUSIVE, *of_it)
            for pair, of_it in zip(pairs, times, strict=True)
        ]
    return series_of


def _is_compiled(run: Run) -> bool:
    return run.facts.compilation is not None and samples.KERNELS in run.arrays


def _columns_of(run: Run, path: str) -> _Times | None:
    """Of a compiled side a function's times in each round."""
    if not _is_compiled(run):
        return None
    column = [row.path for row in run.facts.functions].index(path)
    return run.arrays[samples.FUNCTIONS][:, column].astype(np.float64), 0.0


def _kernel_series(
    pairs: Sequence[tuple[Run, Run]], own: _Own, kernels: Sequence[KernelPair]
) -> dict[int, list[Series | None]]:
    return {
        number: [
            _in_rounds(pair, samples.KERNELS, before.of(kernel.before), after.of(kernel.after))
            for pair, (before, after) in zip(pairs, own, strict=True)
        ]
        for number, kernel in enumerate(kernels)
    }


_Times = tuple[Samples, float]


def _in_rounds(
    pair: tuple[Run, Run], name: str, before: _Times | None, after: _Times | None
) -> Series | None:
    if before is None or after is None:
        return None
    series = _paired(pair, name, before[0], after[0])
    return series and replace(series, error=math.hypot(before[1], after[1]))


_RowsOf = Callable[[Run], Sequence[RowFacts]]
_KINDS: Mapping[str, _RowsOf] = {
    samples.INCLUSIVE: lambda run: run.facts.modules,
    samples.FUNCTIONS: lambda run: run.facts.functions,
}
_HOST_INCLUSIVE = samples.HOST + samples.INCLUSIVE
_ON_HOST: Mapping[str, _RowsOf] = {_HOST_INCLUSIVE: lambda run: run.facts.modules}
# The forwards that an array's times are from.
_FORWARDS = {
    samples.UNTOUCHED: samples.UNTOUCHED,
    samples.INCLUSIVE: samples.INSTRUMENTED,
    samples.FUNCTIONS: samples.FUNCTIONS,
    samples.KERNELS: samples.INSTRUMENTED,
    _HOST_INCLUSIVE: samples.INSTRUMENTED,
}


def _series(
    pair: tuple[Run, Run], name: str, columns: tuple[int, int] | None = None
) -> Series | None:
    """Both sides of the rounds that count; ``None`` where they cannot be paired."""
    arrays = [run.arrays.get(name) for run in pair]
    if any(array is None for array in arrays):
        return None
    before, after = (
        array if columns is None else array[:, columns[side]]
        for side, array in enumerate(arrays)
        if array is not None
    )
    return _paired(pair, name, before, after)


def _paired(
    pair: tuple[Run, Run], name: str, before: NDArray[Any], after: NDArray[Any]
) -> Series | None:
    """Both sides' times of this kind, nanoseconds, shape (rounds,), in the rounds that count."""
    # Forwards whose work depended on data are left out of a run, and break its pairing.
    if len(before) != len(after) or len(before) < FEWEST_ROUNDS:
        return None
    if not (before.all() and after.all()):
        return None
    holding = [run for run in pair if not _is_of_kernels(run, name)]
    quiet = _quiet(holding, _FORWARDS[name], len(before))
    # Of a machine that was too busy no verdict is given; its figures are those of all rounds.
    keep = quiet if np.count_nonzero(quiet) >= _needed(len(quiet)) else np.full_like(quiet, True)
    places = pair[0].arrays.get(samples.PLACEMENT + _FORWARDS[name])
    if places is None or len(places) != len(before):
        places = np.zeros(len(before), dtype=np.int64)
    first, second = (side[keep].astype(np.float64) * NANOSECOND for side in (before, after))
    return Series(first, second, places[keep])


def _is_of_kernels(run: Run, name: str) -> bool:
    """Whether an array's times are those of kernels, in which no wait of the host is."""
    by_row = name in (samples.INCLUSIVE, samples.FUNCTIONS, samples.KERNELS)
    return by_row and run.facts.device_times == "kernels"


def _quiet(runs: Sequence[Run], forwards: str, rounds: int) -> NDArray[np.bool_]:
    """The rounds without a wait for a core; rounds without a measurement count."""
    quiet = np.full(rounds, True)
    for run in runs:
        waited = run.arrays.get(samples.WAITED + forwards)
        if waited is not None and len(waited) == rounds:
            quiet &= waited == 0
    return quiet


def _needed(rounds: int) -> float:
    return max(FEWEST_ROUNDS, FEWEST_QUIET * rounds)


def _voids(pairs: Sequence[tuple[Run, Run]]) -> Voids:
    """Why no verdict is possible, on which times."""
    runs = [run for pair in pairs for run in pair]
    holding = min((_holding(run) for run in runs), key=_MOST_HELD.index)
    devices = (of_device(run.facts.environment) for run in runs)
    return Voids.of(_too_busy(pairs, holding), next(filter(None, devices), ""), holding)


# What any of several processes holds, all of them together hold.
_MOST_HELD: Sequence[Holding] = ("every", "launching", "host")


def _holding(run: Run) -> Holding:
    whole_s = float(np.median(run.arrays[samples.UNTOUCHED])) * NANOSECOND
    return disturbance.holding(device_rounds(run.facts, [run.arrays]), whole_s)


def _too_busy(pairs: Sequence[tuple[Run, Run]], holding: Holding) -> str:
    """Why times that hold the host's waits tell nothing; empty if they do."""
    quiet = [
        _quiet(pair, kind, len(pair[0].arrays[kind]))
        for pair in pairs
        for kind in (samples.UNTOUCHED, samples.INSTRUMENTED)
        if kind in pair[0].arrays
    ]
    if all(np.count_nonzero(one) >= _needed(len(one)) for one in quiet):
        return ""
    waits = samples.waits_of([run.arrays for pair in pairs for run in pair])
    disturbed = Waits(
        rounds=1 - sum(map(np.count_nonzero, quiet)) / sum(map(len, quiet)),
        time=0.0 if waits is None else waits.time,
    )
    threads = pairs[0][0].facts.environment.machine.threads
    said = contention.refusal(disturbed, threads, holding)
    if all(np.count_nonzero(one) >= FEWEST_QUIET * len(one) for one in quiet):
        return f"{said} Fewer than {FEWEST_ROUNDS} rounds did not wait: give more iterations, too."
    return said


# --- estimates -----------------------------------------------------------------------------


def estimate(
    series: Sequence[Series | None], seed: int, alone: float = LAYOUT_SCALE
) -> Estimate | None:
    """A row's ratio and times.

    Args:
        series: one for each process.
        seed: of the resampling.
        alone: how far two copies are believed to lie apart where each has one place only, as a
            logarithm.

    Returns:
        ``None`` if a process has too few rounds.
    """
    every = [None if one is None else _in_one_process(one, seed, alone) for one in series]
    estimates = [one for one in every if one is not None]
    if len(estimates) < len(series):
        return None
    level = math.exp(math.fsum(math.log(one.level_s) for one in estimates) / len(estimates))
    return Estimate(ratios.of_estimates([one.ratio for one in estimates]), level)


def _in_one_process(series: Series, seed: int, alone: float) -> Estimate | None:
    """From the median ratios of the places that the weights had.

    The places' variance is that which is seen, moderated by what is believed before (Smyth 2004):
    of a few places it is known badly.
    """
    logarithms = np.log(series.after / series.before)
    places = _places(series.places)
    if not places:
        return None
    medians = np.array([np.median(logarithms[here]) for here in places])
    centred = np.concatenate(
        [logarithms[here] - median for here, median in zip(places, medians, strict=True)]
    )
    level = float(np.exp(np.median(np.log(series.after * series.before)) / 2))
    count = len(places)
    noise = _standard_error(centred, seed)
    layout = LAYOUT_SCALE if count > 1 else alone
    believed = layout**2 + count * noise**2
    seen = float(((medians - medians.mean()) ** 2).sum())
    df = LAYOUT_DF + count - 1
    scale = math.sqrt((LAYOUT_DF * believed + seen) / df / count)
    ratio = LogRatio(float(medians.mean()), scale, df)
    known = ratio.plus(OBJECTS_S / level, OBJECTS_DF)
    return Estimate(known.plus(series.error, math.inf), level)


def _places(numbers: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """The rounds of each place that has enough of them; of all together, if none has."""
    places = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    enough = [here for here in places if len(here) >= FEWEST_IN_A_PLACE]
    return enough or ([np.arange(len(numbers))] if len(numbers) >= FEWEST_IN_A_PLACE else [])


def _standard_error(logarithms: Samples, seed: int) -> float:
    """Of the median of all rounds, places apart."""
    values = np.exp(logarithms)
    low, high = Resampler([len(values)], seed=seed).median_interval(values)
    return ratios.of_interval(float(np.median(values)), low, high).scale
