"""Predicted GPU memory beside what others have measured and published.

    python -m benchmarks.prediction

The published figures, with their sources, stand in benchmarks/data/published_gpu_memory.csv.
No figure is fitted to them; how wide the bounds are was chosen with some of them in sight, and
these are counted apart.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PUBLISHED = Path(__file__).parent / "data" / "published_gpu_memory.csv"
MIB = 2**20


def main(
    only: Annotated[str, typer.Option(help="Rows with this in model or source.")] = "",
) -> None:
    """Print a row for each published figure, and how many lie in the predicted interval."""
    from tabulate import tabulate

    from layerbench.api import memory  # noqa: F401 - what importing takes is no prediction's time

    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if only in row["model"] or only in row["source"]]
    outcomes = [_predict(row) for row in rows]
    header = ["model", "run", "metric", "source", "published", "predicted", "interval", "error"]
    print(tabulate(map(_cells, outcomes), [*header, "holds"], tablefmt="github"))
    print()
    for seen, what in (("yes", "in sight"), ("no", "not in sight")):
        group = [outcome for outcome in outcomes if outcome.row["seen"] == seen]
        if group:
            print(f"{what} when the bounds were chosen: {_summary(group)}")
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(f"slowest prediction: {slowest.seconds:.1f} s, {slowest.row['model']}")


@dataclass(frozen=True)
class _Outcome:
    row: dict[str, str]
    figure: float
    low: float
    high: float
    seconds: float

    @property
    def published(self) -> float:
        return float(self.row["mib"])

    @property
    def holds(self) -> bool:
        return self.low <= self.published <= self.high

    @property
    def error(self) -> float:
        return self.figure / self.published - 1


def _summary(outcomes: Sequence[_Outcome]) -> str:
    errors = statistics.median(abs(outcome.error) for outcome in outcomes)
    inside = sum(outcome.holds for outcome in outcomes)
    return f"{inside} of {len(outcomes)} in the interval; median absolute error {errors:.1%}"


def _cells(outcome: _Outcome) -> list[str]:
    row = outcome.row
    return [
        f"{row['model'].rpartition(':')[2]} {row['input']}",
        f"training, {row['optimizer']}" if row["training"] == "yes" else "inference",
        row["metric"],
        row["source"],
        f"{outcome.published:.0f}",
        f"{outcome.figure:.0f}",
        f"[{outcome.low:.0f}, {outcome.high:.0f}]",
        f"{outcome.error:+.1%}",
        "yes" if outcome.holds else "no",
    ]


def _predict(row: dict[str, str]) -> _Outcome:
    """The figure and its bounds, MiB."""
    from layerbench.api.memory import estimate_memory

    start = time.perf_counter()
    training = row["training"] == "yes"
    record = estimate_memory(
        row["model"],
        row["input"],
        training=training,
        optimizer=row["optimizer"] if training else None,  # type: ignore[arg-type]
    )
    figure, interval = (
        (record.peak_bytes, record.peak_interval)
        if row["metric"] == "allocated"
        else (record.reserved_bytes, record.reserved_interval)
    )
    seconds = time.perf_counter() - start
    return _Outcome(row, figure / MIB, interval.low / MIB, interval.high / MIB, seconds)


if __name__ == "__main__":
    typer.run(main)
