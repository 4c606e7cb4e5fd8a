"""When a sweep's climb over batch sizes ends because the next one would take too long."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench.records.sweep import SweepPoint

WARMUP = 3
"""Forwards that are not kept, at least."""
FEWEST = 5
"""Forwards that are kept, at least, where one alone does not take longer than a point may."""


def expected_s(points: Sequence[SweepPoint], batch: int) -> float:
    """Seconds of a forward, as long for an image as at the last point; 0 before the first."""
    return points[-1].per_image_s * batch if points else 0.0


def too_long(points: Sequence[SweepPoint], batch: int, seconds: float) -> str:
    """Why a batch would take too long, as one sentence; empty where it would not.

    Args:
        points: of the same model and size, ascending.
        batch: images a forward.
        seconds: for a point.
    """
    forwards = FEWEST + WARMUP
    whole = expected_s(points, batch) * forwards
    if whole <= seconds:
        return ""
    return (
        f"{forwards} forwards would take about {whole:.0f} s, more than the {seconds:g} s of a "
        "point"
    )
