"""The roofline of a bundle, where it holds times and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from layerbench.analysis.roofline import Point, has_flops, points
from layerbench.errors import ComparisonError
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Ceilings
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.schema import Roofline, RooflinePoint


def roofline(bundle: Bundle, numbers: Mapping[str, int]) -> Roofline | None:
    """FLOPs a second against FLOPs a byte, for each layer; ``None`` without times or FLOPs.

    Args:
        bundle: with a profile, which has FLOPs or is beside a structure of the same work.
        numbers: of the rows, by path.
    """
    profile, structure = bundle.profile, bundle.structure
    if profile is None or not profile.layers or not (structure or has_flops(profile)):
        return None
    try:
        layers = points(profile, structure)
    except ComparisonError:
        return None
    if structure is None and not layers:
        return None
    ceilings = profile.ceilings
    bytes_are = "Bytes are the least: inputs, outputs and parameters once."
    return Roofline(
        flops_per_s=ceilings.flops_per_s if ceilings else None,
        bytes_per_s=ceilings.bytes_per_s if ceilings else None,
        how=f"{_how(ceilings)} {bytes_are}"
        if ceilings
        else f"{bytes_are} No ceilings were measured (timer --ceilings).",
        points=tuple(
            _point(point, numbers[point.path]) for point in layers if point.path in numbers
        ),
    )


def _point(point: Point, row: int) -> RooflinePoint:
    return RooflinePoint(
        row=row,
        intensity=rounded(point.intensity),
        rate=rounded(point.rate),
        share=None if point.share_of_roof is None else rounded(point.share_of_roof),
        bound=point.bound,
    )


def _how(ceilings: Ceilings) -> str:
    """How they were measured, and that the clock was low meanwhile."""
    seen = ceilings.conditions
    slow = f" While they were measured: {seen.warning}" if seen and seen.warning else ""
    return f"{ceilings.how}{slow}"
