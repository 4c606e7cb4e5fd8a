"""Two records' times compared, as records or by the paths of their files. Loads no torch."""

from __future__ import annotations

from os import PathLike, fspath

from layerbench.analysis import comparison
from layerbench.analysis.comparison import THRESHOLD
from layerbench.records.bundle import Bundle
from layerbench.records.comparison import Comparison
from layerbench.records.timing import Profile
from layerbench.store import reading


def compare(
    baseline: Profile | Bundle | str | PathLike[str],
    contender: Profile | Bundle | str | PathLike[str],
    *,
    names: tuple[str, str] | None = None,
    threshold: float = THRESHOLD,
    same_model: bool = False,
) -> Comparison:
    """Compare two profiles that were measured one after the other.

    Args:
        baseline, contender: profiles or bundles, or paths of their files. Model and input are the
            same; everything else may differ.
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
    before, after = (
        reading.with_times(side) if isinstance(side, str | PathLike) else side for side in sides
    )
    return comparison.compare(
        before,
        after,
        names=names or (usual[0], usual[1]),
        threshold=threshold,
        same_model=same_model,
    )
