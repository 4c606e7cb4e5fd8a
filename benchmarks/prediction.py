"""Predicted GPU memory beside what others have measured and published.

    python -m benchmarks.prediction

The published figures, with their sources, stand in benchmarks/data/published_gpu_memory.csv. A row
whose source names the card is predicted for that card, and for a GPU that is not named. No figure
is fitted to them. How wide the bounds are was chosen with them in sight (docs/prediction.md).
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

PUBLISHED = Path(__file__).parent / "data" / "published_gpu_memory.csv"
MIB = 2**20
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CARDS = ("t4", "rtx3090", "rtx4090", "a100", "h100")


def main(
    only: Annotated[str, typer.Option(help="Rows with this in model or source.")] = "",
) -> None:
    """Print a row for each published figure, and how many lie in the predicted interval."""
    from tabulate import tabulate

    from layerbench.api import memory  # noqa: F401 - what importing takes is no prediction's time

    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if only in row["model"] or only in row["source"]]
    outcomes = [_predict(row) for row in rows]
    header = ["model", "run", "metric", "source", "card", "published", "predicted", "interval"]
    header += ["error", "holds", "not named"]
    print(tabulate(map(_cells, outcomes), header, tablefmt="github"))
    print()
    for name, group in ((name, group) for name, group in _groups(outcomes) if group):
        print(f"{name}: {_summary(group)}")
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(f"slowest prediction: {slowest.seconds:.1f} s, {slowest.row['model']}")
    print()
    print("ResNet-50 (timm, 100 classes), inference, allocated, MiB by batch:")
    print(tabulate(_resnet50(), ["card", *map(str, BATCHES)], tablefmt="github"))


def _groups(outcomes: Sequence[_Outcome]) -> Iterator[tuple[str, list[_Outcome]]]:
    yield "in sight when the bounds of --device cuda were chosen", _with(outcomes, seen="yes")
    yield "fetched after that", _with(outcomes, seen="no")
    yield "fetched when the bounds of named cards were chosen", _with(outcomes, seen="later")
    for source in dict.fromkeys(one.row["source"] for one in outcomes if one.row["card"]):
        yield source, _with(outcomes, source=source)
    small = [one for one in _with(outcomes, seen="no") if int(one.row["input"].split("x")[0]) <= 50]
    yield "fetched after that, up to 50 images", small
    yield (
        "fetched after that, more",
        [one for one in _with(outcomes, seen="no") if one not in small],
    )


def _with(outcomes: Sequence[_Outcome], **what: str) -> list[_Outcome]:
    return [one for one in outcomes if all(one.row[key] == value for key, value in what.items())]


def _resnet50() -> Iterator[list[object]]:
    """Its peaks on a GPU that is not named, and on cards."""
    from layerbench.api.memory import estimate_memory

    for card in ("cuda", *CARDS):
        yield [
            card,
            *(
                round(
                    estimate_memory(
                        "benchmarks.models:resnet50_with_100_classes",
                        f"{batch}x3x224x224",
                        device=card,
                        largest_batch=False,
                    ).peak_bytes
                    / MIB
                )
                for batch in BATCHES
            ),
        ]


@dataclass(frozen=True)
class _Outcome:
    """One row: the figure and its bounds, MiB, for its card, and ``not_named`` for any GPU."""

    row: dict[str, str]
    figure: float
    low: float
    high: float
    seconds: float
    not_named: _Outcome | None = None

    @property
    def published(self) -> float:
        return float(self.row["mib"])

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def holds(self) -> bool:
        return self.low <= self.published <= self.high

    @property
    def error(self) -> float:
        return self.figure / self.published - 1


def _summary(outcomes: Sequence[_Outcome]) -> str:
    errors = statistics.median(abs(outcome.error) for outcome in outcomes)
    inside = sum(outcome.holds for outcome in outcomes)
    said = f"{inside} of {len(outcomes)} in the interval; median absolute error {errors:.1%}"
    pairs = [(one, one.not_named) for one in outcomes if one.not_named is not None]
    if not pairs:
        return said
    widths = statistics.median(one.width / other.width for one, other in pairs)
    before = statistics.median(abs(other.error) for _, other in pairs)
    return f"{said}; interval {widths:.2f} of that without a card, whose error is {before:.1%}"


def _cells(outcome: _Outcome) -> list[str]:
    row = outcome.row
    return [
        f"{row['model'].rpartition(':')[2]} {row['input']}",
        f"training, {row['optimizer']}" if row["training"] == "yes" else "inference",
        row["metric"],
        row["source"],
        row["card"],
        f"{outcome.published:.0f}",
        f"{outcome.figure:.0f}",
        f"[{outcome.low:.0f}, {outcome.high:.0f}]",
        f"{outcome.error:+.1%}",
        "yes" if outcome.holds else "no",
        "" if outcome.not_named is None else f"{outcome.not_named.error:+.1%}",
    ]


def _predict(row: dict[str, str]) -> _Outcome:
    not_named = _predict_on(row, "cuda")
    return replace(_predict_on(row, row["card"]), not_named=not_named) if row["card"] else not_named


def _predict_on(row: dict[str, str], device: str) -> _Outcome:
    from layerbench.api.memory import estimate_memory

    start = time.perf_counter()
    training = row["training"] == "yes"
    record = estimate_memory(
        row["model"],
        row["input"],
        device=device,
        training=training,
        optimizer=row["optimizer"] if training else None,  # type: ignore[arg-type]
        largest_batch=False,
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
