"""The reports of `mem`, and its predictions beside what the device's allocator counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import layerbench
from benchmarks.gpu.step import Figures, Settings
from layerbench import units
from layerbench.errors import first_line
from layerbench.records.memory import Interval, MemoryEstimate, MemoryReport

BATCH = 8


@dataclass
class Compared:
    """One model, in inference or in a training step; bytes.

    Attributes:
        model, training: what ran.
        predicted, low, high: the prediction and its interval.
        measured: what the allocator counted; ``None`` where the device's does not.
    """

    model: str
    training: bool
    what: str
    predicted: int
    low: int
    high: int
    measured: int | None

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1."""
        return None if not self.measured else self.predicted / self.measured - 1

    @property
    def holds(self) -> bool | None:
        """Whether the interval holds what was measured."""
        return None if self.measured is None else self.low <= self.measured <= self.high


@dataclass
class Memory(Figures):
    """Peaks, allocated and reserved."""

    compared: list[Compared] = field(default_factory=list)

    def headline(self) -> str:
        """The largest error, and how many intervals hold."""
        told = [one for one in self.compared if one.error is not None]
        if not told:
            return f"{len(self.compared)} predictions; this device's allocator does not count"
        worst = max(abs(one.error or 0.0) for one in told)
        held = sum(bool(one.holds) for one in told)
        return (
            f"predicted against measured: at most {units.percent(worst, 1)} apart; "
            f"{held} of {len(told)} intervals hold"
        )

    def table(self) -> list[list[str]]:
        """A row a peak."""
        header = ["model", "run", "metric", "measured", "predicted", "interval", "error", "holds"]
        return [header, *map(_row, self.compared)]


def _row(one: Compared) -> list[str]:
    low, high = (units.mebibytes(value, unit=False) for value in (one.low, one.high))
    return [
        one.model,
        "training" if one.training else "inference",
        one.what,
        "-" if one.measured is None else units.mebibytes(one.measured, unit=False),
        units.mebibytes(one.predicted, unit=False),
        f"[{low}, {high}]",
        "-" if one.error is None else f"{one.error:+.1%}",
        {None: "-", True: "yes", False: "no"}[one.holds],
    ]


def run(settings: Settings) -> Iterator[Memory]:
    """Each model in inference and in training: measured, then predicted."""
    device = settings.opened()
    folder = settings.out / "stats" / device.describe().slug / "memory_reports"
    folder.mkdir(parents=True, exist_ok=True)
    figures = Memory()
    for model in settings.models:
        for training in settings.either((False, True), (True,)):
            work: dict[str, Any] = {"batch": BATCH, "training": training}
            shape = None if settings.size is None else f"3x{settings.size}x{settings.size}"
            device.forget_freed()
            try:
                measured = layerbench.memory(model, shape, device=settings.device, **work)
                predicted = layerbench.estimate_memory(model, shape, **work)
            except Exception as error:
                kind = "training" if training else "inference"
                figures.absent[f"{model}, {kind}"] = first_line(error)
                continue
            name = f"{model.rpartition(':')[2]}_{BATCH}{'_train' if training else ''}"
            for suffix in ("json", "txt"):
                measured.save(folder / f"{name}.{suffix}")
            predicted.save(folder / f"{name}_predicted.json")
            figures.compared += _compared(model, training, measured, predicted)
            yield figures


def _compared(
    model: str, training: bool, measured: MemoryReport, predicted: MemoryEstimate
) -> list[Compared]:
    counted = measured.allocator
    peaks: list[tuple[str, int, Interval, int | None]] = [
        (
            "allocated",
            predicted.peak_bytes,
            predicted.peak_interval,
            counted.allocated if counted else None,
        ),
        (
            "reserved",
            predicted.reserved_bytes,
            predicted.reserved_interval,
            counted.reserved if counted else None,
        ),
    ]
    return [
        Compared(model, training, what, middle, interval.low, interval.high, real)
        for what, middle, interval, real in peaks
    ]
