"""Figures of a run out of its epochs and steps. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis.statistics import Resampler, summarize
from layerbench.records.recipes import Recipe
from layerbench.records.timing import Summary
from layerbench.records.training_run import EpochRow
from layerbench.records.training_step import STEP_PHASES, PhaseRow, StepPhase
from layerbench.units import NANOSECOND


def best_epoch(rows: Sequence[EpochRow]) -> int | None:
    """The first epoch with the highest validation accuracy; ``None`` before any."""
    return max(rows, key=lambda row: (row.val_accuracy, -row.epoch)).epoch if rows else None


def out_of_patience(recipe: Recipe, rows: Sequence[EpochRow]) -> bool:
    """Whether as many epochs as the recipe allows went by without a better accuracy."""
    best = best_epoch(rows)
    if recipe.patience is None or best is None:
        return False
    return rows[-1].epoch - best >= recipe.patience


def summary(nanoseconds: Sequence[int] | NDArray[np.int64]) -> Summary | None:
    """The distribution of times, shape ``(n,)``; ``None`` for none."""
    seconds = np.asarray(nanoseconds, dtype=np.float64) * NANOSECOND
    return summarize(seconds, Resampler([len(seconds)])) if len(seconds) else None


def phase_rows(steps: Sequence[tuple[int, ...]]) -> tuple[PhaseRow, ...]:
    """A row for each of `STEP_PHASES`; none for no steps.

    Args:
        steps: nanoseconds of each step by phase.
    """
    if not steps:
        return ()
    times = np.array(steps, dtype=np.int64)
    rows = zip(STEP_PHASES, (summary(column) for column in times.T), strict=True)
    return tuple(PhaseRow(name=name, time=time) for name, time in rows if time is not None)


def phases_s(nanoseconds: Sequence[int]) -> dict[StepPhase, float]:
    """Seconds of each of `STEP_PHASES`."""
    return {name: time * NANOSECOND for name, time in zip(STEP_PHASES, nanoseconds, strict=True)}


def step_summary(steps: Sequence[tuple[int, ...]]) -> Summary | None:
    """Of whole steps."""
    return summary([sum(step) for step in steps])
