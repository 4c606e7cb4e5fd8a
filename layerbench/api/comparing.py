"""Two records' times compared, as records or by the paths of their files. Loads no torch."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

from layerbench.analysis import comparison
from layerbench.analysis.comparison import THRESHOLD
from layerbench.analysis.latency_comparison import compare_latency, is_predicted
from layerbench.records.bundle import Bundle
from layerbench.records.comparison import Comparison
from layerbench.records.latency_comparison import LatencyComparison
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.store import reading

Timed = Profile | Bundle | LatencyEstimate | TrainingProfile
"""What has times; a training step's are compared with predicted ones alone."""


def compare(
    baseline: Timed | str | PathLike[str],
    contender: Timed | str | PathLike[str],
    *,
    names: tuple[str, str] | None = None,
    threshold: float = THRESHOLD,
    same_model: bool = False,
) -> Comparison | LatencyComparison:
    """Compare two profiles that were measured one after the other, or what is predicted.

    Args:
        baseline, contender: profiles or bundles, or paths of their files. Model and input are the
            same; everything else may differ. Where one of them is predicted, the other may be so,
            too, and may be of a training step.
        names: what to call them; ``None`` for their paths, or else "baseline" and "contender".
        threshold: see `Comparison`.
        same_model: whether the two are versions of one model, whatever they are called.

    Raises:
        RecordError: a file that is not there or damaged, or that holds no times.
        ComparisonError: another model or input, or a record without times.
    """
    sides = (baseline, contender)
    usual = [
        fspath(side) if isinstance(side, str | PathLike) else name
        for side, name in zip(sides, ("baseline", "contender"), strict=True)
    ]
    held: list[Any] = [
        reading.read(side) if isinstance(side, str | PathLike) else side for side in sides
    ]
    settings: dict[str, Any] = {
        "names": names or (usual[0], usual[1]),
        "threshold": threshold,
        "same_model": same_model,
    }
    if any(map(is_predicted, held)):
        return compare_latency(held[0], held[1], **settings)
    for side, record in zip(sides, held, strict=True):
        if isinstance(side, str | PathLike):
            reading.check_times(side, record)
    return comparison.compare(held[0], held[1], **settings)
