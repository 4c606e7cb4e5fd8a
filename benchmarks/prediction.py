"""Predicted GPU memory beside what others have measured and published.

    python -m benchmarks.prediction

The published figures, with their sources, stand in benchmarks/data/published_gpu_memory.csv;
no figure is fitted to them; how wide the bounds are was chosen with them in sight.
"""

from __future__ import annotations

import csv
import statistics
import time
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

    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if only in row["model"] or only in row["source"]]
    cells, errors, inside, slowest = [], [], 0, 0.0
    for row in rows:
        start = time.perf_counter()
        figure, low, high = _predict(row)
        slowest = max(slowest, time.perf_counter() - start)
        published = float(row["mib"])
        holds = low <= published <= high
        inside += holds
        errors.append(figure / published - 1)
        run = f"training, {row['optimizer']}" if row["training"] == "yes" else "inference"
        cells.append(
            [
                f"{row['model'].rpartition(':')[2]} {row['input']}",
                run,
                row["metric"],
                row["source"],
                f"{published:.0f}",
                f"{figure:.0f}",
                f"[{low:.0f}, {high:.0f}]",
                f"{errors[-1]:+.1%}",
                "yes" if holds else "no",
            ]
        )
    header = ["model", "run", "metric", "source", "published", "predicted", "interval", "error"]
    print(tabulate(cells, [*header, "holds"], tablefmt="github", disable_numparse=True))
    print(
        f"\n{inside} of {len(rows)} in the interval; median absolute error "
        f"{statistics.median(map(abs, errors)):.1%}; slowest prediction {slowest:.1f} s"
    )


def _predict(row: dict[str, str]) -> tuple[float, float, float]:
    """The figure and its bounds, MiB."""
    from layerbench import api

    training = row["training"] == "yes"
    record = api.estimate_memory(
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
    return figure / MIB, interval.low / MIB, interval.high / MIB


if __name__ == "__main__":
    typer.run(main)
