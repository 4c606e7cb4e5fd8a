"""`time_layers` over a long loop: do times keep their digits as the clock runs on?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil
import torch
from torch import nn

from benchmarks.gpu.step import LIMIT, Figures, Settings
from layerbench import units
from layerbench.profilers.user_loop import time_layers
from layerbench.records.timing import LayerRow, Summary

SHORT_S, LONG_S = 3.0, 120.0
# Of a step's time, what is beside the loops: PyTorch is loaded, the model built, 20,000 forwards
# are added up.
BESIDES_S = 30.0
SHOWN = 3
# The loop's last forwards, whose times are looked at for their digits.
LAST = 500


@dataclass
class Row:
    """One of the shortest layers, or the whole.

    Attributes:
        path: ``""`` is the whole.
        p5_s, p25_s, median_s, p75_s, p95_s: of its samples.
        n: how many there are.
    """

    path: str
    p5_s: float
    p25_s: float
    median_s: float
    p75_s: float
    p95_s: float
    n: int


@dataclass
class Stretch:
    """One loop.

    Attributes:
        seconds: how long it ran.
        forwards: in it.
        resident: bytes by which the process grew.
        rows: the whole and the shortest layers.
        finest_s: the smallest difference between the times of two of the last forwards on the
            device's clock; ``None`` where it has none.
    """

    seconds: float
    forwards: int
    resident: int
    rows: list[Row]
    finest_s: float | None = None


@dataclass
class Loops(Figures):
    """A short loop, a long one, a short one again, over one model."""

    stretches: list[Stretch] = field(default_factory=list)

    def headline(self) -> str:
        """The spread of the shortest layer, and the digits of the whole, loop by loop."""
        parts = []
        for stretch in self.stretches:
            shortest = stretch.rows[-1]
            finest = stretch.finest_s
            parts.append(
                f"{stretch.seconds:.0f} s: {units.seconds(shortest.median_s)} "
                f"[{units.seconds(shortest.p5_s)}, {units.seconds(shortest.p95_s)}]"
                + ("" if finest is None else f", forwards told apart by {units.seconds(finest)}")
            )
        return f"shortest layer, 5th to 95th percentile: {'; '.join(parts)}" if parts else ""

    def table(self) -> list[list[str]]:
        """A row a loop and layer."""
        header = ["loop", "forwards", "grew by", "layer", "p5", "p25", "median", "p75", "p95"]
        return [
            header,
            *(
                [
                    f"{stretch.seconds:.1f} s",
                    str(stretch.forwards),
                    units.mebibytes(stretch.resident),
                    row.path or "the whole",
                    *map(units.seconds, (row.p5_s, row.p25_s, row.median_s, row.p75_s, row.p95_s)),
                ]
                for stretch in self.stretches
                for row in stretch.rows
            ),
        ]


def run(settings: Settings) -> Iterator[Loops]:
    """Loop after loop over the same model."""
    figures = Loops()
    built = settings.built(settings.models[0], 1)
    short, long = settings.either((SHORT_S, long_s(os.environ.get(LIMIT))), (0.02, 0.04))
    for seconds in (short, long, short):
        figures.stretches.append(_looped(built.module, built.args, seconds))
        yield figures


def long_s(limit: str | None) -> float:
    """Seconds of the long loop: two minutes, or less where the step has not so long.

    Args:
        limit: seconds that the step has; ``None`` where nobody stops it.
    """
    if limit is None:
        return LONG_S
    return max(SHORT_S, min(LONG_S, float(limit) - 2 * SHORT_S - BESIDES_S))


def _looped(model: nn.Module, args: tuple[Any, ...], seconds: float) -> Stretch:
    resident = psutil.Process().memory_info().rss
    begin = time.perf_counter()
    with torch.inference_mode(), time_layers(model, flops=False) as layers:
        # Also where a forward takes longer than the loop may: few rows stand on one forward.
        while time.perf_counter() - begin < seconds or layers.forwards < 4:
            model(*args)
    took = time.perf_counter() - begin
    record = layers.record  # once: it adds all forwards up, which takes seconds
    # Without those for which the device does nothing.
    leaves = [r for r in record.layers if _median(r) > 0 and not _has_below(record.layers, r.path)]
    shortest = sorted(leaves, key=_median, reverse=True)[-SHOWN:]
    rows = [_row(row.path, row.inclusive) for row in shortest if row.inclusive]
    grew = psutil.Process().memory_info().rss - resident
    return Stretch(
        seconds=took,
        forwards=layers.forwards,
        resident=grew,
        rows=[_row("", record.whole), *rows],
        finest_s=finest_s(layers._whole[-LAST:]),
    )


def finest_s(times_ns: Sequence[int]) -> float | None:
    """The smallest difference between two of them; ``None`` where all are the same.

    A clock that has run on for two minutes since its origin tells 8 µs, in single precision.
    """
    steps = [after - before for before, after in pairwise(sorted(set(times_ns)))]
    return min(steps) * units.NANOSECOND if steps else None


def _median(row: LayerRow) -> float:
    return row.self_.median if row.self_ else 0.0


def _has_below(rows: Sequence[LayerRow], path: str) -> bool:
    below = f"{path}." if path else ""
    return any(row.path.startswith(below) and row.path != path for row in rows)


def _row(path: str, times: Summary) -> Row:
    return Row(path, times.p5, times.p25, times.median, times.p75, times.p95, times.n)
